"use strict";
// Names of classes and files come from strangers: they only ever become text, never HTML.
const $ = (id) => document.getElementById(id);
const NEAR = 6;
const TOGETHER = 16; // photos of a request: answers come while others wait
let classes = [];
let limits = { images: TOGETHER, bytes: Infinity };

function element(kind, properties = {}, ...children) {
  const node = Object.assign(document.createElement(kind), properties);
  node.append(...children);
  return node;
}

const plural = (number, noun) =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : noun + (/[sx]$/.test(noun) ? "es" : "s")}`;

// A long name may break behind its underscores.
function named(kind, name) {
  const node = element(kind);
  name.split("_").forEach((part, place) => node.append(...(place ? ["_", element("wbr"), part] : [part])));
  return node;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    sessionStorage.removeItem("token");
    $("token").hidden = false;
    document.querySelector("main").hidden = true;
    throw new Error(token ? "The token is wrong." : "");
  }
  if (!response.ok) {
    const text = await response.text();
    let reason = text;
    try { reason = JSON.parse(text).error; } catch { /* it is no JSON */ }
    throw new Error(reason);
  }
  return response;
}

async function carryOut(action) {
  $("problem").hidden = true;
  try {
    await action();
  } catch (problem) {
    $("problem").textContent = problem.message;
    $("problem").hidden = !problem.message;
  }
}

function picture(path, alt) {
  const frame = element("div", { className: "gone", title: "the file is gone" });
  ask(path)
    .then((response) => response.blob())
    .then((blob) => frame.replaceWith(element("img", { src: URL.createObjectURL(blob), alt })))
    .catch(() => {});
  return frame;
}

function near(image) {
  return element("li", { title: image.class },
    picture(image.image, image.class),
    named("span", image.class),
    element("span", { className: "value", textContent: image.similarity.toFixed(3) }));
}

function scale(similarity, threshold) {
  const bar = element("div", { className: "bar" });
  bar.style.width = `${100 * Math.max(similarity, 0)}%`;
  const node = element("div", { className: "scale", title: "similarity of the closest image" }, bar);
  if (threshold !== null) {
    const mark = element("div", { className: "mark", title: `threshold ${threshold.toFixed(3)}` });
    mark.style.left = `${100 * Math.max(threshold, 0)}%`;
    node.append(mark);
  }
  return node;
}

function describe(answer, threshold) {
  const parts = [`similarity ${answer.similarity.toFixed(3)}`];
  if (threshold !== null) parts.push(`threshold ${threshold.toFixed(3)}`);
  parts.push(`${Math.round(100 * answer.vote.share)}% of the ${answer.vote.k} closest images vote for ${answer.vote.class}`);
  return parts.join(" · ");
}

function card(answer, file, threshold) {
  const unknown = answer.class === null;
  const body = element("div", {},
    named("h3", unknown ? "unknown" : answer.class),
    scale(answer.similarity, threshold),
    named("p", describe(answer, threshold)));
  if (unknown) body.append(element("p", { textContent: `No image is similar enough. The closest is of ${answer.closest_class}.` }));
  if (answer.confidence !== null) {
    const share = (100 * answer.confidence).toFixed(1);
    body.append(element("p", { textContent: `Confidence ${share}%: as many calibration images that are at least as similar were answered right.` }));
  }
  body.append(element("ul", { className: "near" }, ...answer.closest.slice(0, NEAR).map(near)));
  const photo = element("img", { src: URL.createObjectURL(file), alt: file.name });
  return element("article", { className: unknown ? "answer unknown" : "answer" }, photo, body);
}

// Photos in as many requests as the server's limits ask for.
function groups(files) {
  const all = [];
  let bytes = 0;
  for (const file of files) {
    const size = file.size + 1000; // a form adds less than that
    if (!all.length || bytes + size > limits.bytes || all.at(-1).length === limits.images) {
      all.push([]);
      bytes = 0;
    }
    all.at(-1).push(file);
    bytes += size;
  }
  return all;
}

async function predict(files) {
  const box = element("div");
  $("answers").prepend(box);
  for (const group of groups(files)) {
    const form = new FormData();
    group.forEach((file, place) => form.append("images", file, `${place}`));
    const response = await ask("predict", { method: "POST", body: form }).catch((problem) => {
      // The server knows photos by their places.
      const text = problem.message.replace(/(^|; )(\d+): /g, (_, before, place) => `${before}${group[place].name}: `);
      throw new Error(text);
    });
    const result = await response.json();
    box.append(...result.answers.map((answer) => card(answer, group[Number(answer.image)], result.threshold)));
    box.append(...result.unreadable.map((fault) =>
      element("p", { className: "fault", textContent: `${group[Number(fault.image)].name}: ${fault.reason}` })));
  }
}

async function enrol(files) {
  const name = document.querySelector("#enrol input[name=class]");
  if (!name.reportValidity()) return;
  let added = 0, twice = 0, isNew = false;
  try {
    for (const group of groups(files)) {
      const form = new FormData();
      form.append("class", name.value);
      group.forEach((file) => form.append("images", file, file.name));
      const result = await (await ask("enrol", { method: "POST", body: form })).json();
      added += result.enrolled;
      twice += result.already_there;
      isNew ||= result.is_new;
      const known = isNew ? "is a class now" : "has them now";
      const there = twice ? ` (${twice} there already)` : "";
      $("enrolled").textContent = `${plural(added, "photo")} added: ${result.class} ${known}${there}.`;
    }
    name.value = "";
  } finally {
    await load();
  }
}

async function remove(name) {
  if (!confirm(`Remove ${name} from the gallery? Photos of it that were added here are deleted.`)) return;
  await ask(`classes/${encodeURIComponent(name)}`, { method: "DELETE" });
  await load();
}

function row(entry) {
  const sizes = plural(entry.images, "image") + (entry.enrolled ? `, ${entry.enrolled} added` : "");
  const button = element("button", { type: "button", textContent: "Remove", onclick: () => carryOut(() => remove(entry.class)) });
  button.setAttribute("aria-label", `Remove ${entry.class}`);
  return element("li", {}, picture(entry.image, ""),
    element("span", { className: "name" }, named("span", entry.class), element("small", { textContent: sizes })), button);
}

function list() {
  const wanted = $("filter").value.toLowerCase();
  const shown = classes.filter((entry) => entry.class.toLowerCase().includes(wanted));
  $("classes").replaceChildren(...shown.slice(0, 200).map(row));
  $("count").textContent = classes.length.toLocaleString("en");
}

async function load() {
  const gallery = await (await ask("gallery")).json();
  limits = { images: Math.min(gallery.max_images, TOGETHER), bytes: gallery.max_megabytes * 1e6 };
  $("about").textContent = `${plural(gallery.classes, "class")}, ${plural(gallery.images, "image")} (${gallery.run}, phase ${gallery.phase})`;
  $("rule").textContent = gallery.rule.charAt(0).toUpperCase() + gallery.rule.slice(1) + ".";
  classes = (await (await ask("classes")).json()).classes;
  classes.sort((one, other) => (other.enrolled > 0) - (one.enrolled > 0));
  list();
}

function accept(zone, action) {
  const input = zone.querySelector("input[type=file]");
  const start = async (files) => {
    if (!files.length) return;
    zone.classList.add("busy");
    await carryOut(() => action([...files]));
    zone.classList.remove("busy");
    input.value = "";
  };
  input.addEventListener("change", () => start(input.files));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    start(event.dataTransfer.files);
  });
}

// A photo that misses the boxes must not replace the page.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
accept($("ask"), predict);
accept(document.querySelector("#enrol .drop"), enrol);
$("enrol").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", list);
$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").querySelector("input").value.trim());
  $("token").hidden = true;
  document.querySelector("main").hidden = false;
  carryOut(load);
});
carryOut(load);
