// The points of a map, drawn by WebGL: all of them in a few calls. FiftyOne's panel loads this file
// as a plugin of its own, and the page of `umap` holds it. A browser without WebGL gets the same
// picture from its canvas, point by point.
window.DmlPoints = (() => {
  "use strict";
  const ATTRIBUTES = ["place", "colour", "shape"];
  const UNIFORMS = ["canvas", "origin", "scale", "size", "line", "lineWidth"];
  // Pixels count from the upper left corner. `reach` is the side of the square that holds a shape,
  // its line, and the pixels that these cover in part.
  const VERTEX = `#version 300 es
    in vec2 place;
    in vec4 colour;
    in float shape;
    uniform vec2 canvas, origin;
    uniform float scale, size, lineWidth;
    flat out vec4 fill;
    flat out float kind, reach;
    void main() {
      vec2 pixel = origin + scale * vec2(place.x, -place.y);
      gl_Position = vec4((2.0 * pixel / canvas - 1.0) * vec2(1, -1), 0, 1);
      gl_PointSize = reach = 1.0 + 2.0 * (shape > 0.5 ? 1.7 * size + lineWidth : size);
      fill = colour;
      kind = shape;
    }`;
  // `away` is a pixel's distance from the edge of the shape, below 0 inside: a pixel that the edge
  // crosses is covered in part. Shapes as in `trace`.
  const FRAGMENT = `#version 300 es
    precision highp float;
    flat in vec4 fill;
    flat in float kind, reach;
    uniform vec4 line;
    uniform float size, lineWidth;
    out vec4 pixel;
    void main() {
      vec2 at = (gl_PointCoord - 0.5) * reach;
      float away = length(at) - size;
      if (kind > 1.5) {
        vec2 across = normalize(vec2(2.7, -1.5));
        away = max(at.y - size, dot(across, vec2(abs(at.x), at.y + 1.7 * size)));
      } else if (kind > 0.5) away = (abs(at.x) + abs(at.y) - 1.6 * size) * sqrt(0.5);
      float inside = fill.a * clamp(0.5 - away, 0.0, 1.0);
      float edge = clamp(0.5 + lineWidth / 2.0 - abs(away), 0.0, min(1.0, lineWidth));
      edge *= kind > 0.5 ? fill.a * line.a : 0.0;
      pixel = vec4(fill.rgb, 1) * inside * (1.0 - edge) + vec4(line.rgb, 1) * edge;
    }`;
  const NO_LINE = { colour: [0, 0, 0], opacity: 0, width: 0 };
  let gl = null, uniforms = null, missing = false;

  // The context that all maps of a page draw by: a browser keeps only a few, and takes them away
  // when the graphics card fails. None where there is no WebGL.
  function context() {
    if (missing || (gl && !gl.isContextLost())) return gl;
    gl = document.createElement("canvas").getContext("webgl2", { antialias: false });
    missing = !gl;
    if (missing) return gl;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    ATTRIBUTES.forEach((name, slot) => gl.bindAttribLocation(program, slot, name));
    gl.linkProgram(program);
    gl.useProgram(program);
    uniforms = {};
    for (const name of UNIFORMS) uniforms[name] = gl.getUniformLocation(program, name);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    return gl;
  }

  const parts = new Map();

  // [red, green, blue] of #rrggbb or rgb(...).
  function rgb(colour) {
    if (!parts.has(colour)) {
      const pairs = colour[0] === "#" && colour.match(/[0-9a-f]{2}/gi);
      const values = pairs ? pairs.map((pair) => parseInt(pair, 16)) : colour.match(/\d+/g);
      parts.set(colour, values.map(Number));
    }
    return parts.get(colour);
  }

  // The outline of a shape on a canvas: 0 is a dot, 1 a diamond, 2 a triangle.
  function trace(ink, shape, x, y, size) {
    const corner = (across, down) => ink.lineTo(x + across * size, y + down * size);
    ink.beginPath();
    if (shape === 0) ink.arc(x, y, size, 0, 7);
    else if (shape === 1) [[0, -1.6], [1.6, 0], [0, 1.6], [-1.6, 0]].forEach((at) => corner(...at));
    else [[0, -1.7], [1.5, 1], [-1.5, 1]].forEach((at) => corner(...at));
    ink.closePath();
  }

  class DmlPoints {
    // `x` and `y` are numbers, or null for a point that isn't on the map.
    constructor(x, y, shapes) {
      this.canvas = document.createElement("canvas");
      this.ink = this.canvas.getContext("2d");
      this.places = Float32Array.from(x.flatMap((across, row) => [across, y[row]]));
      this.shapes = Uint8Array.from(shapes);
      this.style(new Uint8Array(4 * x.length), []);
    }

    // Red, green, blue and opacity of each point, 0 to 255; and layers: lists of points in the order
    // in which they are drawn.
    style(colours, layers) {
      Object.assign(this, { colours, layers, stale: true });
    }

    // Point (x, y) lies at (left + scale x, top - scale y) of a canvas of width x height pixels.
    // Each layer has a look: a radius `size`, and a `line` around its diamonds and triangles.
    draw({ width, height, left, top, scale }, looks) {
      Object.assign(this.canvas, { width, height }); // which also clears it
      if (!width || !height) return;
      if (!context()) return void this.drawEach({ left, top, scale }, looks);
      this.upload();
      const { canvas } = gl;
      if (canvas.width < width) canvas.width = width;
      if (canvas.height < height) canvas.height = height;
      gl.viewport(0, canvas.height - height, width, height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(uniforms.canvas, width, height);
      gl.uniform2f(uniforms.origin, left, top);
      gl.uniform1f(uniforms.scale, scale);
      let start = 0;
      this.layers.forEach((rows, layer) => {
        const { size, line = NO_LINE } = looks[layer];
        gl.uniform1f(uniforms.size, size);
        gl.uniform4f(uniforms.line, ...line.colour.map((value) => value / 255), line.opacity);
        gl.uniform1f(uniforms.lineWidth, line.width);
        gl.drawElements(gl.POINTS, rows.length, gl.UNSIGNED_INT, 4 * start);
        start += rows.length;
      });
      this.ink.drawImage(canvas, 0, 0);
    }

    // Give the graphics card what it hasn't yet.
    upload() {
      const isNew = this.gl !== gl;
      if (isNew) {
        this.gl = gl;
        this.array = gl.createVertexArray();
        this.buffers = [...ATTRIBUTES, "order"].map(() => gl.createBuffer());
      }
      gl.bindVertexArray(this.array);
      const give = (slot, data, count, kind) => {
        gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[slot]);
        gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(slot);
        gl.vertexAttribPointer(slot, count, kind, ATTRIBUTES[slot] === "colour", 0, 0);
      };
      if (isNew) {
        give(0, this.places, 2, gl.FLOAT);
        give(2, this.shapes, 1, gl.UNSIGNED_BYTE);
      }
      if (isNew || this.stale) {
        give(1, this.colours, 4, gl.UNSIGNED_BYTE);
        const order = Uint32Array.from(this.layers.flat());
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers[3]);
        gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, order, gl.STATIC_DRAW);
      }
      this.stale = false;
    }

    drawEach({ left, top, scale }, looks) {
      const { ink, places, shapes, colours } = this;
      this.layers.forEach((rows, layer) => {
        const { size, line } = looks[layer];
        for (const row of rows) {
          const [red, green, blue, opacity] = colours.subarray(4 * row, 4 * row + 4);
          const x = left + scale * places[2 * row], y = top - scale * places[2 * row + 1];
          ink.globalAlpha = opacity / 255;
          ink.fillStyle = `rgb(${red}, ${green}, ${blue})`;
          trace(ink, shapes[row], x, y, size);
          ink.fill();
          if (!shapes[row] || !line) continue;
          ink.globalAlpha *= line.opacity;
          ink.lineWidth = line.width;
          ink.strokeStyle = `rgb(${line.colour})`;
          ink.stroke();
        }
      });
    }
  }
  return Object.assign(DmlPoints, { context, rgb, trace });
})();
