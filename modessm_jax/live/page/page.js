// The page of a live decoder: shows what the server publishes, and sends corrections back.
//
// Messages are those of modessm_jax/live/live.py. The first is `hello`: what the decoder is
// (title, session, channels, whether it decodes words, the method by which it is recalibrated or
// null, symbols, seconds of a bin and of a frame), the sentence that is forming, and past sentences.
"use strict";

const WINDOW = 8; // seconds that the pictures show
const RETRY = 1000; // milliseconds until a lost connection is tried again
const GUTTER = 58; // pixels at the left for the names of phonemes
const MARGIN = 4; // pixels above and below them
const SILENCE = " | ";
const QUIET = 3000; // milliseconds without news after which the page says so

const at = (id) => document.getElementById(id);
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// What is shown. Times are seconds on one axis that begins when the page is opened.
let about = { decodes_words: true, symbols: [], bin_seconds: 0.02, frame_seconds: 0.08, channels: 0 };
let now = 0; // time of the last bin
let began = 0; // time at which this sentence began
let phonemes = []; // {symbol, start, end, level}; neighbours are on two levels
let level = 0;
let words = [];
let ended = false; // the sentence shown is a past one
let paused = false;
let changed = true; // the pictures have to be drawn again
let socket = null;
let lastNews = 0; // performance.now() of it

// Columns of bytes over time, in a ring as long as the window.
class Tape {
  constructor(rows, seconds) {
    this.rows = rows;
    this.seconds = seconds;
    this.columns = Math.ceil(WINDOW / seconds) + 1;
    this.end = 0; // columns so far
    this.bytes = new Uint8Array(this.columns * rows);
    this.canvas = document.createElement("canvas");
    this.canvas.width = this.columns;
    this.canvas.height = rows;
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(1, rows);
  }

  // Sets a column; those that were passed over are empty.
  put(column, bytes, colours) {
    const first = Math.max(this.end, column - this.columns + 1);
    for (let empty = first; empty < column; empty++) this.paint(empty, null, colours);
    this.paint(column, bytes, colours);
    this.end = Math.max(this.end, column + 1);
  }

  paint(column, bytes, colours) {
    const place = column % this.columns;
    const kept = this.bytes.subarray(place * this.rows, (place + 1) * this.rows);
    if (bytes) kept.set(bytes);
    else kept.fill(0);
    this.colour(place, colours);
  }

  colour(place, colours) {
    const pixels = new Uint32Array(this.image.data.buffer);
    for (let row = 0; row < this.rows; row++) {
      pixels[row] = colours[this.bytes[place * this.rows + row]];
    }
    this.context.putImageData(this.image, place, 0);
  }

  recolour(colours) {
    for (let place = 0; place < this.columns; place++) this.colour(place, colours);
  }

  // Draws the window that ends now, into a rectangle of another canvas.
  draw(context, left, top, width, height) {
    const pixels = width / WINDOW; // of a second
    const first = Math.max(0, this.end - this.columns, Math.floor((now - WINDOW) / this.seconds));
    for (let column = first; column < this.end; ) {
      const place = column % this.columns;
      const many = Math.min(this.end - column, this.columns - place);
      const x = left + width - (now - column * this.seconds) * pixels;
      const wide = many * this.seconds * pixels;
      context.drawImage(this.canvas, place, 0, many, this.rows, x, top, wide, height);
      column += many;
    }
  }
}

let raster = new Tape(1, about.bin_seconds);
let heat = new Tape(1, about.frame_seconds);
let colours = {};

// 256 colours from one to the other, as pixels; `curve` says how far each is on the way.
function ramp(from, to, curve) {
  const ends = [from, to].map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const [r, g, b] = ends[0].map((start, k) => Math.round(start + (ends[1][k] - start) * curve(byte)));
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["panel", "line", "ink", "soft", "signal", "phoneme"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
  // Below the mean is empty; three standard deviations above it are full.
  colours.activity = ramp(colours.panel, colours.signal, (byte) => Math.min(1, Math.max(0, (byte - 128) / 96)));
  colours.probability = ramp(colours.panel, colours.phoneme, (byte) => (byte / 255) ** 0.6);
  raster.recolour(colours.activity);
  heat.recolour(colours.probability);
  changed = true;
}

// A canvas's context, in CSS pixels and sharp on every display; emptied.
function canvasOf(id) {
  const canvas = at(id);
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

function draw() {
  if (changed && !paused) {
    changed = false;
    drawRaster();
    drawProbabilities();
    drawPhonemes();
  }
  requestAnimationFrame(draw);
}

function drawRaster() {
  const [context, width, height] = canvasOf("raster");
  context.imageSmoothingEnabled = raster.rows > height;
  raster.draw(context, GUTTER, 0, width - GUTTER, height);
  context.clearRect(0, 0, GUTTER, height);
}

function drawProbabilities() {
  const [context, width, height] = canvasOf("probabilities");
  context.imageSmoothingEnabled = false;
  heat.draw(context, GUTTER, MARGIN, width - GUTTER, height - 2 * MARGIN);
  context.clearRect(0, 0, GUTTER, height);
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  const row = (height - 2 * MARGIN) / heat.rows;
  const last = heat.end ? (heat.end - 1) % heat.columns : 0;
  for (let k = 0; k < heat.rows; k++) {
    const likely = heat.bytes[last * heat.rows + k] > 127;
    context.fillStyle = likely ? colours.phoneme : colours.soft;
    // Neighbours in two columns: they are closer than letters are high.
    context.fillText(nameOf(about.symbols[k + 1] ?? ""), GUTTER - 6 - (k % 2 ? 26 : 0), MARGIN + (k + 0.5) * row);
  }
}

function drawPhonemes() {
  const [context, width, height] = canvasOf("phonemes");
  const pixels = (width - GUTTER) / WINDOW;
  const x = (time) => width - (now - time) * pixels;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.soft;
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.beginPath();
  for (let second = 0; second < WINDOW; second++) {
    const place = width - second * pixels;
    context.moveTo(place, 0);
    context.lineTo(place, height - 14);
    context.fillText(second ? `−${second}` : "", place, height);
  }
  context.stroke();
  context.textBaseline = "middle";
  for (const { symbol, start, end, level } of phonemes) {
    if (x(start) < GUTTER) continue;
    const silent = symbol === SILENCE;
    context.fillStyle = silent ? colours.soft : colours.phoneme;
    context.fillRect(x(start), 2, Math.max(2, x(end) - x(start) - 1), 3);
    context.fillStyle = silent ? colours.soft : colours.ink;
    context.font = "13px system-ui, sans-serif";
    if (!silent) context.fillText(symbol, (x(start) + x(end)) / 2, 15 + 13 * level);
  }
}

const nameOf = (symbol) => (symbol === SILENCE ? "SIL" : symbol);

function showSentence(committed, tentative) {
  at("committed").textContent = committed;
  at("tentative").textContent = tentative;
  at("sentence").classList.toggle("ended", ended);
}

const joined = (parts) => parts.map((part) => part[0].trim()).join(" ");

function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  at("spoken").append(line);
  while (at("spoken").childElementCount > 20) at("spoken").firstElementChild.remove();
}

function status(text, kind) {
  if (at("status").textContent === text) return; // or a screen reader would say it again
  at("status").textContent = text;
  at("status").className = kind;
}

function set(id, text, bad = false) {
  at(id).textContent = text;
  at(id).classList.toggle("bad", bad);
}

function showFigures(figures, counts, silent) {
  const milliseconds = (seconds) => `${(1000 * seconds).toFixed(1)} ms`;
  for (const name of ["p50", "p99", "largest"]) set(name, milliseconds(figures[name]));
  set("load", `${(100 * figures.load).toFixed(0)} %`, figures.load > 0.8);
  set("missed", `${figures.missed}`, figures.missed > 0);
  set("used", counts.used.toLocaleString("en"));
  const kinds = ["lost", "doubled", "late", "strayed", "unfit", "unreadable", "jumps"];
  const faults = kinds.filter((kind) => counts[kind]).map((kind) => `${counts[kind]} ${kind}`);
  if (counts.missing_values) faults.push(`${counts.missing_values} values missing`);
  set("faults", faults.join(", ") || "none", faults.length > 0);
  const some = silent.slice(0, 8).join(", ") + (silent.length > 8 ? ", …" : "");
  set("silent", silent.length ? `${silent.length}: ${some}` : "none", silent.length > 0);
}

function make(kind, text, name) {
  const element = document.createElement(kind);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function showPast(sentence) {
  at("none").hidden = true;
  at(`sentence-${sentence.id}`)?.remove();
  const item = document.createElement("li");
  item.id = `sentence-${sentence.id}`;
  const row = make("div", "", "row");
  const shown = make("p", sentence.corrected ?? (sentence.text || "(nothing)"), "text");
  const button = make("button", "Correct");
  button.type = "button";
  button.setAttribute("aria-label", `Correct: ${shown.textContent}`);
  button.addEventListener("click", () => edit(item, sentence, button));
  row.append(shown, button);
  const more = [new Date(sentence.written).toLocaleTimeString(), `${sentence.seconds.toFixed(1)} s`];
  if (sentence.corrected !== undefined) more.push(`decoded: ${sentence.text || "nothing"}`);
  if (sentence.reference) more.push(`meant: ${sentence.reference}`);
  item.append(row, make("p", more.join(" · "), "more"));
  const next = [...at("past").children].find((other) => Number(other.id.slice(9)) < sentence.id);
  at("past").insertBefore(item, next ?? null);
  while (at("past").childElementCount > 100) at("past").lastElementChild.remove();
  past.set(sentence.id, sentence);
  past.delete(sentence.id - 100);
}

const past = new Map();

function edit(item, sentence, button) {
  const form = document.createElement("form");
  const field = document.createElement("input");
  field.value = sentence.corrected ?? sentence.text;
  field.maxLength = 1000;
  field.setAttribute("aria-label", "What was meant");
  const save = make("button", "Save");
  save.type = "submit";
  const cancel = make("button", "Cancel");
  cancel.type = "button";
  const close = () => {
    form.remove();
    button.hidden = false;
    button.focus();
  };
  cancel.addEventListener("click", close);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    at("refused").textContent = "";
    if (socket?.readyState !== WebSocket.OPEN) {
      at("refused").textContent = "Not saved: the connection is lost. Save again when it is back.";
      return;
    }
    socket.send(JSON.stringify({ corrects: sentence.id, text: field.value }));
    close();
  });
  form.append(field, save, " ", cancel);
  item.append(form);
  button.hidden = true;
  field.focus();
  field.select();
}

const take = {
  hello(message) {
    about = message;
    at("about").textContent = `${message.title}, session ${message.session}`;
    at("channels").textContent = message.channels;
    set("learned", message.recalibrate ?? "off");
    document.title = `Live: ${message.session}`;
    raster = new Tape(message.channels, message.bin_seconds);
    heat = new Tape(message.symbols.length - 1, message.frame_seconds);
    raster.end = Math.round(now / message.bin_seconds);
    heat.end = Math.round(now / message.frame_seconds);
    began = now;
    phonemes = [];
    ended = false;
    words = message.decodes_words ? message.forming.words : message.forming.phonemes;
    showSentence(joined(words), message.forming.tentative.join(" "));
    message.sentences.forEach(showPast);
    readColours();
    status("connected", "good");
  },

  news(message) {
    lastNews = performance.now();
    const bins = bytesOf(message.bins);
    for (let place = 0; place < bins.length; place += raster.rows) {
      raster.put(raster.end, bins.subarray(place, place + raster.rows), colours.activity);
    }
    now = raster.end * about.bin_seconds;
    began = now - message.seconds;
    const frames = bytesOf(message.frames);
    const first = Math.round((began + message.first_frame * about.frame_seconds) / about.frame_seconds);
    for (let k = 0; k * (heat.rows + 1) < frames.length; k++) {
      const start = k * (heat.rows + 1) + 1; // without the blank
      heat.put(first + k, frames.subarray(start, start + heat.rows), colours.probability);
    }
    for (const [symbol, start, end] of message.phonemes) {
      if (symbol !== SILENCE) level = 1 - level;
      phonemes.push({ symbol, start: began + start, end: began + end, level });
    }
    phonemes = phonemes.filter(({ end }) => now - end < WINDOW);
    const fresh = about.decodes_words ? message.words : message.phonemes;
    if (ended && (fresh.length || message.tentative.length)) {
      ended = false;
      words = [];
    }
    if (!ended) {
      words.push(...fresh);
      showSentence(joined(words), message.tentative.join(" "));
    }
    if (message.words.length) say(joined(message.words));
    showFigures(message.figures, message.counts, message.silent);
    status("receiving", "good");
    changed = true;
  },

  sentence(message) {
    const announced = joined(words);
    ended = true;
    words = [];
    showSentence(message.text, "");
    if (about.decodes_words && message.text !== announced) say(`Sentence: ${message.text}`);
    showPast(message);
  },

  learned(message) {
    set("learned", `sentence ${message.learned_from}: ${message.text}`, message.taken_back);
  },

  correction(message) {
    const sentence = past.get(message.corrects);
    if (!sentence) return;
    const focused = document.activeElement?.closest("li")?.id === `sentence-${sentence.id}`;
    showPast({ ...sentence, corrected: message.text });
    if (focused) at(`sentence-${sentence.id}`).querySelector("button").focus();
  },

  refused(message) {
    at("refused").textContent = `Not saved: ${message.reason}.`;
  },
};

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/live${location.search}`);
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    take[message.type](message);
  });
  socket.addEventListener("close", () => {
    status("connection lost; trying again", "bad");
    setTimeout(connect, RETRY);
  });
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  changed = true;
  at("pause").setAttribute("aria-pressed", String(paused));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
new ResizeObserver(() => { changed = true; }).observe(document.body);
setInterval(() => {
  const quiet = socket?.readyState === WebSocket.OPEN && performance.now() - lastNews > QUIET;
  if (quiet) status("no bins are coming", "bad");
}, 1000);

readColours();
connect();
requestAnimationFrame(draw);
