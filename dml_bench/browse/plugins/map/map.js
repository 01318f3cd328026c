// The panel with the maps of a run's embeddings, one for each phase. Both are linked to each other
// and to the grid: they show the images of the view, and a lasso filters the grid. Points are drawn
// by `points.js`; FiftyOne gives React and its state to plugins as globals.
(() => {
  "use strict";
  const { React, recoil, __fos__: app, __foo__: operators } = window;
  const SHAPES = ["", "test", "enrolled"]; // of parts; all others are dots
  const GROUND = "#15181c", GHOST = "#4a525d";
  const SCALE = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
  const PATIENCE = 150; // milliseconds before the server is asked about a view that changes
  // Values that have a colour each, and numbers on a scale. Those of a phase differ between maps.
  const COLOURINGS = {
    class_group: "seen or unseen class",
    split: "part",
    verdict: "right or wrong",
    outcome: "outcome of both phases",
    label: "class",
    coarse_class: "coarse class or family",
    similarity: "similarity of the nearest",
    doubt: "doubt of the label",
    hubness: "hubness",
    class_drop: "precision drop of the class",
  };
  const NUMBERS = new Set(["similarity", "doubt", "hubness", "class_drop"]);
  const OF_PHASE = new Set(["class_group", "verdict", "similarity", "doubt", "hubness"]);
  localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true"); // it lies over the panel

  const ask = (name, params = {}) =>
    new Promise((answer, fail) =>
      operators.executeOperator(`@dml-bench/map/${name}`, params, {
        callback: (got) => (got.error ? fail(new Error(got.error)) : answer(got.result)),
      })
    );
  const perform = (name, params) => operators.executeOperator(name, params);

  function element(kind, properties = {}, ...children) {
    const made = document.createElement(kind);
    Object.assign(made, properties);
    made.append(...children);
    return made;
  }

  class Maps {
    constructor(root) {
      this.root = root;
      this.rows = null; // those of the view; null for all
      this.zoom = { x: 0.5, y: 0.5, by: 1 };
      this.lit = new Set();
      this.selected = new Set();
      this.pointed = this.chosen = -1;
      this.chip = ""; // the label that images in the grid bear
      root.append(element("style", { textContent: STYLE }));
      this.load();
    }

    async load() {
      const note = element("p", { className: "note", textContent: "Reading the maps ..." });
      this.root.append(note);
      try {
        this.data = await ask("points");
      } catch (error) {
        note.textContent = `The maps can't be read: ${error.message}`;
        return;
      }
      note.remove();
      const { settings, phases } = this.data;
      this.rowOf = new Map(this.data.ids.map((id, row) => [id, row]));
      this.order = mixed(this.data.common.split);
      const usual = this.data.common.class_group.includes("unseen") ? "class_group" : "label";
      this.colouring = settings.colouring in COLOURINGS ? settings.colouring : usual;
      this.shown = phases.map((phase) => phase.name);
      if (this.shown.length > 2) this.shown = this.shown.slice(0, 2);
      const known = (settings.shown ?? []).filter((name) => phases.some((p) => p.name === name));
      if (known.length) this.shown = known;
      this.lit = new Set(settings.lit ?? []);
      this.chip = `answer_${phases[0].name}`;
      this.build();
      this.follow();
      this.select(this.waiting ?? new Set());
    }

    // Controls, maps, legend and the images of a chosen point.
    build() {
      const { phases } = this.data;
      this.menu = element("select", { title: "Colour points by" });
      for (const [value, textContent] of Object.entries(COLOURINGS)) {
        const there = OF_PHASE.has(value) || value === "label" || this.data.common[value];
        if (there) this.menu.append(element("option", { value, textContent }));
      }
      this.menu.value = this.colouring;
      this.menu.onchange = () => this.recolour(this.menu.value);
      this.search = element("input", { type: "search", placeholder: "Find a class" });
      this.search.oninput = () => {
        if (this.colouring !== "label") this.recolour("label");
        this.legend();
      };
      this.search.onkeydown = (event) => {
        if (event.key === "Enter") this.light(this.matches());
      };
      this.count = element("span", { className: "count" });
      const clear = element("button", { textContent: "Show all", title: "Clear view and lasso" });
      clear.onclick = () => this.clear();
      this.bar = element("div", { className: "bar" }, this.menu, this.search, clear, this.count);
      this.panes = phases.map((phase) => this.pane(phase));
      this.field = element("div", { className: "field" }, ...this.panes.map((pane) => pane.box));
      this.names = element("div", { className: "legend" });
      this.tip = element("div", { className: "tip" });
      this.detail = element("div", { className: "detail" });
      this.root.append(this.bar, this.field, this.names, this.detail, this.tip);
      this.watcher = new ResizeObserver(() => this.arrange());
      this.watcher.observe(this.field);
      this.legend();
      this.arrange();
    }

    pane(phase) {
      const canvas = element("canvas"), pane = { phase, canvas, spots: null };
      const shapes = this.data.common.split.map((part) => Math.max(0, SHAPES.indexOf(part)));
      pane.points = new DmlPoints(phase.x, phase.y, shapes);
      const checked = this.shown.includes(phase.name);
      const toggle = element("input", { type: "checkbox", checked });
      toggle.onchange = () => {
        const others = this.shown.filter((name) => name !== phase.name);
        if (!toggle.checked && !others.length) return void (toggle.checked = true);
        this.shown = toggle.checked ? [...others, phase.name] : others;
        this.arrange();
        this.remember();
      };
      // Of rotated hold-outs the names are enough to tell them apart.
      const name = this.data.phases.length > 2 ? phase.name.replaceAll("_", "-") : phase.title;
      const label = element("label", { title: phase.title }, toggle, ` ${name}`);
      this.bar.append(label);
      const title = element("div", { className: "title", textContent: phase.title });
      const notes = element("div", { className: "notes", textContent: phase.notes.join("\n") });
      const sheets = element("div", { className: "sheets" }, pane.points.canvas, canvas);
      pane.box = element("div", { className: "pane" }, title, notes, sheets);
      pane.extent = extent(phase);
      this.listen(pane);
      return pane;
    }

    shownPanes() {
      return this.panes.filter((pane) => this.shown.includes(pane.phase.name));
    }

    arrange() {
      const shown = this.shownPanes();
      for (const pane of this.panes) pane.box.style.display = shown.includes(pane) ? "" : "none";
      const { clientWidth: width, clientHeight: height } = this.root, many = shown.length;
      const { extent: first } = shown[0];
      const beside = fitting(first, width / many, height) >= fitting(first, width, height / many);
      this.field.style.flexDirection = beside ? "row" : "column";
      this.draw();
    }

    destroy() {
      this.watcher?.disconnect();
      clearTimeout(this.timer);
    }

    // What a person does with a map.
    listen(pane) {
      const { canvas } = pane;
      let lasso = null, from = null;
      const at = (event) => [event.offsetX, event.offsetY];
      canvas.onpointerdown = (event) => {
        canvas.setPointerCapture(event.pointerId);
        from = at(event);
        if (event.button === 0 && !event.shiftKey) lasso = [from];
      };
      canvas.onpointermove = (event) => {
        const now = at(event);
        if (lasso) {
          lasso.push(now);
          if (lasso.length > 3) this.mark(pane, lasso);
        } else if (from) {
          this.zoom.x -= (now[0] - from[0]) / pane.side;
          this.zoom.y -= (now[1] - from[1]) / pane.side;
          from = now;
          this.move();
        } else this.point(pane, now, event);
      };
      canvas.onpointerup = (event) => {
        const line = lasso, now = at(event), start = from;
        lasso = from = null;
        if (!line) return;
        const moved = line.some(([x, y]) => Math.hypot(x - start[0], y - start[1]) > 5);
        if (moved) this.surround(pane, line);
        else this.choose(this.under(pane, now));
      };
      canvas.onpointerleave = () => this.point(pane, null);
      canvas.ondblclick = () => {
        this.zoom = { x: 0.5, y: 0.5, by: 1 };
        this.move();
      };
      canvas.oncontextmenu = (event) => event.preventDefault();
      canvas.onwheel = (event) => {
        event.preventDefault();
        const factor = Math.exp(-event.deltaY / 400), [x, y] = at(event);
        const by = Math.min(60, Math.max(1, this.zoom.by * factor)), real = by / this.zoom.by;
        const dx = (x - pane.width / 2) / pane.side, dy = (y - pane.height / 2) / pane.side;
        this.zoom = {
          x: (this.zoom.x - 0.5 + dx) * real - dx + 0.5,
          y: (this.zoom.y - 0.5 + dy) * real - dy + 0.5,
          by,
        };
        this.move();
      };
    }

    under(pane, [x, y]) {
      let best = -1, least = 9 * 9;
      for (const row of this.visible()) {
        const spot = pane.spots;
        const far = (spot[2 * row] - x) ** 2 + (spot[2 * row + 1] - y) ** 2;
        if (far <= least) [best, least] = [row, far];
      }
      return best;
    }

    surround(pane, line) {
      const inside = [];
      for (const row of this.visible()) {
        if (within(pane.spots[2 * row], pane.spots[2 * row + 1], line)) inside.push(row);
      }
      this.mark();
      if (!inside.length) return;
      const samples = inside.map((row) => this.data.ids[row]);
      perform("show_samples", { samples, use_extended_selection: true });
    }

    clear() {
      this.light([]);
      perform("set_extended_selection", { reset: true });
      perform("clear_sidebar_filters");
      perform("clear_view");
      perform("clear_selected_samples");
    }

    // The view, the filters and the selection of the app.
    follow() {
      if (!this.data) return;
      clearTimeout(this.timer);
      this.timer = setTimeout(async () => {
        const { rows, chip } = await ask("rows");
        this.rows = rows;
        this.bear(chip ?? (rows ? this.chip : `answer_${this.data.phases[0].name}`));
        this.legend();
        this.draw();
      }, PATIENCE);
    }

    select(ids) {
      this.waiting = ids;
      if (!this.data) return;
      this.selected = new Set([...ids].map((id) => this.rowOf.get(id)));
      this.legend();
      this.mark();
    }

    // The one label that each image in the grid bears.
    bear(chip) {
      if (chip === this.chip) return;
      this.chip = chip;
      perform("set_active_fields", { fields: [chip] });
    }

    visible() {
      return this.rows ?? this.data.ids.keys();
    }

    // Colours.
    valuesOf(phase) {
      if (this.colouring === "label") return this.data.label;
      const source = OF_PHASE.has(this.colouring) ? phase : this.data.common;
      return source[this.colouring];
    }

    recolour(colouring) {
      this.colouring = this.menu.value = colouring;
      this.lit.clear();
      if (colouring !== "label") this.search.value = "";
      this.legend();
      this.draw();
      this.remember();
    }

    nameOf(value) {
      if (value === null || value === undefined) return "none";
      return this.colouring === "label" ? this.className(value) : String(value);
    }

    colourOf(value) {
      if (value === null || value === undefined) return GHOST;
      const few = [...this.lit]; // have colours that lie farther apart
      if (this.colouring === "label") {
        return this.data.classColours[few.includes(value) ? few.indexOf(value) : value];
      }
      const { colours, coarseColours } = this.data;
      return (this.colouring === "coarse_class" ? coarseColours : colours)[value] ?? "#7a8794";
    }

    limits() {
      const values = this.panes.flatMap((pane) => this.valuesOf(pane.phase));
      let low = Infinity, high = -Infinity;
      for (const value of values) {
        if (value === null) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
      return [low, high];
    }

    matches() {
      const text = this.search.value.trim().toLowerCase().replaceAll("_", " ");
      if (!text) return [];
      const found = (name) => name.toLowerCase().replaceAll("_", " ").includes(text);
      return this.data.classes.flatMap((name, row) => (found(name) ? [row] : []));
    }

    light(values) {
      this.lit = new Set(values);
      this.legend();
      this.draw();
      this.remember();
    }

    legend() {
      const total = this.data.ids.length, some = this.rows ? this.rows.length : total;
      const ringed = this.selected.size ? `, ${this.selected.size} selected` : "";
      this.count.textContent = `${some.toLocaleString()} of ${total.toLocaleString()} images${ringed}`;
      this.names.replaceChildren();
      if (NUMBERS.has(this.colouring)) {
        const [low, high] = this.limits(), strip = element("i", { className: "strip" });
        strip.style.background = `linear-gradient(90deg, ${SCALE})`;
        this.names.append(low.toFixed(2), strip, high.toFixed(2));
        return;
      }
      const counts = new Map();
      const values = this.valuesOf(this.panes.find((p) => this.shown.includes(p.phase.name)).phase);
      for (const row of this.visible()) counts.set(values[row], (counts.get(values[row]) ?? 0) + 1);
      const wanted = this.search.value && this.colouring === "label" ? this.matches() : null;
      const order = [...counts.keys()].sort((a, b) => (a < b ? -1 : 1));
      for (const value of order) {
        if (wanted && !wanted.includes(value)) continue;
        const dot = element("i", { className: "dot" });
        dot.style.background = this.colourOf(value);
        const text = `${this.nameOf(value)} ${counts.get(value).toLocaleString()}`;
        const entry = element("button", { title: "Highlight" }, dot, text);
        entry.classList.toggle("off", this.lit.size > 0 && !this.lit.has(value));
        entry.onclick = () => {
          const lit = new Set(this.lit);
          if (!lit.delete(value)) lit.add(value);
          this.light(lit);
        };
        this.names.append(entry);
      }
    }

    remember() {
      const settings = { colouring: this.colouring, shown: this.shown, lit: [...this.lit] };
      ask("remember", { settings }).catch((error) => console.warn(error));
    }

    // Drawing.
    draw() {
      if (!this.panes) return;
      this.shownPanes().forEach((pane) => this.dye(pane));
      this.move();
    }

    // The same points in another place.
    move() {
      this.shownPanes().forEach((pane) => this.paint(pane));
      this.mark();
    }

    // Rings and the lasso, over the points.
    mark(lassoed, lasso) {
      for (const pane of this.panes ? this.shownPanes() : []) {
        const { canvas, spots } = pane, ink = canvas.getContext("2d");
        if (!spots) continue;
        ink.setTransform(pane.ratio, 0, 0, pane.ratio, 0, 0);
        ink.clearRect(0, 0, pane.width, pane.height);
        ink.lineWidth = 2;
        ink.strokeStyle = "#ffffff";
        for (const row of [...this.selected, this.chosen, this.pointed]) {
          if (!(row >= 0)) continue;
          ink.beginPath();
          ink.arc(spots[2 * row], spots[2 * row + 1], pane.size + 4, 0, 7);
          ink.stroke();
        }
        if (pane !== lassoed || !lasso) continue;
        ink.beginPath();
        ink.lineWidth = 1.5;
        lasso.forEach(([x, y]) => ink.lineTo(x, y));
        ink.stroke();
      }
    }

    // Images that the view lacks are specks, those that aren't highlighted lie below the others.
    dye(pane) {
      const { phase, points } = pane, colours = this.colours(phase);
      const bytes = new Uint8Array(4 * colours.length), absent = [], below = [], above = [];
      for (const row of this.order) {
        if (phase.x[row] === null) continue;
        const colour = colours[row];
        bytes.set([...DmlPoints.rgb(colour ?? GHOST), 255], 4 * row);
        (!colour ? absent : colour === GHOST ? below : above).push(row);
      }
      points.style(bytes, [absent, below, above]);
      pane.drawn = above.length;
    }

    paint(pane) {
      const { canvas, points, extent } = pane, ratio = (pane.ratio = window.devicePixelRatio || 1);
      const width = (pane.width = canvas.clientWidth), height = (pane.height = canvas.clientHeight);
      if (!width || !height) return;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const side = (pane.side = fitting(extent, width, height)), { x, y, by } = this.zoom;
      const scale = (side * by) / extent.span, half = extent.span / 2;
      const left = width / 2 + side * (0.5 - x) - scale * (extent.left + half);
      const top = height / 2 + side * (0.5 - y) + scale * (extent.top + half);
      pane.spots = spots(pane.phase, left, top, scale);
      const zoomed = Math.sqrt(Math.min(4, by));
      pane.size = Math.max(1.2, Math.min(3.4, 90 / Math.sqrt(this.data.ids.length))) * zoomed;
      const look = { size: pane.size * ratio }, { width: across, height: down } = canvas;
      const place = { left: left * ratio, top: top * ratio, scale: scale * ratio };
      points.draw({ width: across, height: down, ...place }, [{ size: ratio }, look, look]);
    }

    // The colour of each image of the view; none for others.
    colours(phase) {
      const values = this.valuesOf(phase), colours = new Array(this.data.ids.length);
      const scaled = NUMBERS.has(this.colouring), [low, high] = scaled ? this.limits() : [0, 1];
      for (const row of this.visible()) {
        const value = values[row], dark = this.lit.size && !this.lit.has(value);
        const colour = scaled ? onScale(value, low, high) : this.colourOf(value);
        colours[row] = dark ? GHOST : colour;
      }
      return colours;
    }

    // The image under the pointer, and the one that was clicked with its nearest images.
    source(row) {
      return app.getSampleSrc(this.data.root + this.data.paths[row]);
    }

    // What a phase says of an image: a line with the verdict in its colour.
    describe(row, phase) {
      const share = `${Math.round(100 * phase.share[row])} %`;
      const vote = this.className(phase.vote[row]);
      const line = element("div", { className: "says" }, `${phase.title}: `);
      if (phase.answer[row] < 0) {
        line.append(phase.vote[row] < 0 ? "" : `its neighbours say ${vote}, ${share}`);
        return line;
      }
      const verdict = phase.verdict[row];
      const word = element("b", { className: verdict, textContent: verdict });
      const similarity = phase.similarity[row].toFixed(2);
      const answer = this.className(phase.answer[row]);
      line.append(word, `, ${answer} ${similarity}; vote ${vote} ${share}`);
      return line;
    }

    className(number) {
      return (this.data.classes[number] ?? "none").replace(/^\d+\./, "").replaceAll("_", " ");
    }

    point(pane, place, event) {
      const row = place ? this.under(pane, place) : -1;
      if (row !== this.pointed) {
        this.pointed = row;
        this.mark();
        this.tip.replaceChildren();
        this.tip.style.display = row < 0 ? "none" : "flex";
        if (row < 0) return;
        const { label, common } = this.data, name = this.className(label[row]);
        const kind = `${common.split[row]} image of the ${common.class_group[row]} class `;
        const words = element("div", {}, kind, element("b", { textContent: name }));
        words.append(...this.shownPanes().map(({ phase }) => this.describe(row, phase)));
        this.tip.append(element("img", { src: this.source(row) }), words);
      }
      if (row < 0) return;
      const box = this.root.getBoundingClientRect(), x = event.clientX - box.left;
      const rightmost = box.width - this.tip.offsetWidth - 4;
      this.tip.style.left = `${Math.max(4, Math.min(x + 14, rightmost))}px`;
      const y = event.clientY - box.top, tall = this.tip.offsetHeight;
      this.tip.style.top = `${y + 14 + tall < box.height ? y + 14 : Math.max(4, y - 14 - tall)}px`;
    }

    async choose(row) {
      this.chosen = row;
      this.detail.replaceChildren();
      this.mark();
      if (row < 0) return;
      const nearest = await ask("nearest", { sample: this.data.ids[row] });
      if (this.chosen !== row) return;
      const shown = new Set([this.data.ids[row]]);
      const rows = element("div", { className: "rows" });
      for (const { phase } of this.shownPanes()) {
        const images = nearest[phase.name];
        if (!images) continue;
        rows.append(this.describe(row, phase));
        const line = element("div", { className: "line" });
        for (const [id, similarity] of images) {
          shown.add(id);
          line.append(this.thumbnail(this.rowOf.get(id), similarity, row));
        }
        rows.append(line);
      }
      const open = element("button", { textContent: "Open" });
      open.onclick = () => perform("open_sample", { id: this.data.ids[row] });
      const hint = "Show these images in the grid";
      const grid = element("button", { textContent: "In the grid", title: hint });
      grid.onclick = () => ask("show", { samples: [...shown] });
      const close = element("button", { textContent: "Close" });
      close.onclick = () => this.choose(-1);
      const name = element("b", { textContent: this.className(this.data.label[row]) });
      const picture = element("img", { src: this.source(row) });
      const head = element("div", { className: "head" }, picture, name);
      head.append(element("div", {}, open, grid, close));
      rows.append(this.decisions(row));
      this.detail.append(head, rows);
    }

    // Buttons that keep a decision about the label as a tag; `browse --export` writes them.
    decisions(row) {
      const { tags, classes, label } = this.data, line = element("div", { className: "decide" });
      const said = element("span", { className: "count" });
      const offer = (text, tag) => {
        const title = tag || "Remove the decision";
        const button = element("button", { textContent: text, title });
        button.onclick = async () => {
          const answer = await ask("decide", { sample: this.data.ids[row], tag });
          said.textContent = answer.tags.join(", ");
        };
        line.append(button);
      };
      offer("Label is right", tags.right);
      const others = new Set(this.panes.map(({ phase }) => phase.vote[row]));
      for (const other of others) {
        if (other < 0 || other === label[row]) continue;
        offer(`It is ${this.className(other)}`, tags.class + classes[other]);
      }
      offer("Leave out", tags.leave);
      offer("Undecided", "");
      line.append(said);
      return line;
    }

    thumbnail(row, similarity, chosen) {
      const same = this.data.label[row] === this.data.label[chosen];
      const box = element("button", {
        className: `near ${same ? "same" : "other"}`,
        title: `${this.className(this.data.label[row])}, ${this.data.common.split[row]}`,
      });
      box.append(element("img", { src: this.source(row) }), similarity.toFixed(2));
      box.onclick = () => this.choose(row);
      return box;
    }
  }

  // Where the points of a phase lie on its canvas; NaN for those that it lacks.
  function spots({ x, y }, left, top, scale) {
    const spots = new Float32Array(2 * x.length).fill(NaN);
    for (let row = 0; row < x.length; row++) {
      if (x[row] === null) continue;
      spots[2 * row] = left + scale * x[row];
      spots[2 * row + 1] = top - scale * y[row];
    }
    return spots;
  }

  // The order in which images are drawn: queries over the gallery, enrolled ones over both, and of
  // each part no colour over all others.
  function mixed(parts) {
    const above = (row) => ["test", "enrolled"].indexOf(parts[row]);
    const chance = (row) => Math.imul(row, 2654435761) >>> 0;
    const rows = Array.from(parts, (_, row) => row);
    return rows.sort((a, b) => above(a) - above(b) || chance(a) - chance(b));
  }

  function extent({ x, y }) {
    let left = Infinity, right = -Infinity, top = Infinity, bottom = -Infinity;
    for (let row = 0; row < x.length; row++) {
      if (x[row] === null) continue;
      left = Math.min(left, x[row]);
      right = Math.max(right, x[row]);
      top = Math.min(top, y[row]);
      bottom = Math.max(bottom, y[row]);
    }
    const across = right - left, down = bottom - top, span = Math.max(across, down) || 1;
    const corner = [(left + right - span) / 2, (top + bottom - span) / 2];
    return { left: corner[0], top: corner[1], span, wide: across / span, tall: down / span };
  }

  // The side in pixels of a map's square at which what is on it fits.
  function fitting({ wide, tall }, width, height) {
    return Math.min((width - 20) / (wide || 1), (height - 20) / (tall || 1));
  }

  function onScale(value, low, high) {
    if (value === null || value === undefined) return GHOST;
    const place = high > low ? (value - low) / (high - low) : 0;
    return shade(Math.min(11, Math.floor(12 * place)) / 11);
  }

  // Colours between those of the scale.
  function shade(place) {
    const at = place * (SCALE.length - 1), one = Math.min(SCALE.length - 2, Math.floor(at));
    const [from, to] = SCALE.slice(one, one + 2).map(DmlPoints.rgb);
    return `rgb(${from.map((value, of) => Math.round(value + (at - one) * (to[of] - value)))})`;
  }

  function within(x, y, line) {
    let inside = false;
    for (let at = 0, last = line.length - 1; at < line.length; last = at++) {
      const [ax, ay] = line[at], [bx, by] = line[last];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  }

  const STYLE = `
    .dml { position: relative; height: 100%; display: flex; flex-direction: column; gap: 6px;
      padding: 8px; box-sizing: border-box; color: #e4e8ec; font: 13px/1.35 system-ui, sans-serif;
      background: ${GROUND}; overflow: hidden; }
    .dml select, .dml input[type=search], .dml button { font: inherit; color: inherit;
      background: #262c34; border: 1px solid #4a5560; border-radius: 4px; padding: 3px 8px; }
    .dml button { cursor: pointer; }
    .dml .bar { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; }
    .dml .bar input[type=search] { width: 9em; }
    .dml .count { color: #a0a9b3; }
    .dml .field { flex: 1 1 0; min-height: 200px; display: flex; gap: 6px; }
    .dml .pane { flex: 1 1 0; min-height: 0; min-width: 0; display: flex; flex-direction: column;
      border: 1px solid #343b43; border-radius: 4px; }
    .dml .title { padding: 2px 8px 0; font-weight: 600; }
    .dml .notes { padding: 0 8px 2px; color: #a0a9b3; font-size: 11px; line-height: 1.3;
      white-space: pre-line; }
    .dml .sheets { flex: 1 1 0; min-height: 0; position: relative; }
    .dml canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair;
      touch-action: none; }
    .dml .legend { display: flex; flex-wrap: wrap; gap: 4px; max-height: 92px; overflow: auto;
      align-items: center; }
    .dml .legend button { border: 0; background: none; padding: 1px 6px; }
    .dml .legend button.off { opacity: .45; }
    .dml .dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px;
      margin-right: 5px; }
    .dml .strip { flex: 0 1 200px; height: 10px; border-radius: 5px; }
    .dml .tip { position: absolute; display: none; gap: 8px; padding: 8px; width: max-content;
      max-width: min(440px, 96%); box-sizing: border-box; z-index: 9;
      background: #262c34; border: 1px solid #4a5560; border-radius: 4px; pointer-events: none; }
    .dml .tip img { width: 96px; height: 96px; object-fit: contain; }
    .dml .detail { display: flex; gap: 10px; max-height: 50%; overflow: auto; }
    .dml .detail:empty { display: none; }
    .dml .head { flex: 0 0 112px; overflow-wrap: anywhere; }
    .dml .head img { display: block; width: 112px; height: 84px; object-fit: contain; }
    .dml .head button { padding: 1px 6px; margin: 2px 2px 0 0; }
    .dml b.right { color: #5fcf9b; }
    .dml b.wrong { color: #ff8a80; }
    .dml b.unknown { color: #e5b35a; }
    .dml .decide { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 4px; align-items: center; }
    .dml .decide button { padding: 1px 6px; }
    .dml .rows { flex: 1; min-width: 0; }
    .dml .line { display: flex; gap: 4px; overflow-x: auto; }
    .dml .line .near { flex: 1 0 36px; max-width: 60px; padding: 0; border-width: 0 0 4px;
      font-size: 12px; background: none; }
    .dml .near img { display: block; width: 100%; height: 44px; object-fit: cover; }
    .dml .near.same { border-color: #1f9e77; }
    .dml .near.other { border-color: #d9662b; }
    [data-cy^="tag-answer_"], [data-cy="tag-doubt"] { white-space: normal !important;
      height: auto !important;
      display: -webkit-box !important; -webkit-box-orient: vertical; -webkit-line-clamp: 4;
      font-size: 11px !important; line-height: 1.2 !important; text-align: left !important;
      padding: 0 4px !important; }
    [data-cy="tag-doubt"] { -webkit-line-clamp: 5; }`;

  function Panel() {
    const place = React.useRef(null), maps = React.useRef(null);
    const view = recoil.useRecoilValue(app.view), filters = recoil.useRecoilValue(app.filters);
    const extended = recoil.useRecoilValue(app.extendedStages);
    const selected = recoil.useRecoilValue(app.selectedSamples);
    React.useEffect(() => {
      maps.current = window.dmlMaps = new Maps(place.current);
      return () => maps.current.destroy();
    }, []);
    const asked = JSON.stringify([view, filters, extended]);
    React.useEffect(() => maps.current.follow(), [asked]);
    React.useEffect(() => maps.current.select(new Set([...selected.keys()])), [selected]);
    return React.createElement("div", { ref: place, className: "dml" });
  }

  window.__fo_plugin_registry__.register({
    name: "dml_map",
    label: "Map",
    component: Panel,
    type: 2, // a panel
    activator: () => true,
    Icon: () => null,
    panelOptions: { surfaces: "grid", priority: 0 },
  });
})();
