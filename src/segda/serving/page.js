"use strict";

const by = (id) => document.getElementById(id);
let facts = null;  // what the server has
let frames = [];   // what it says of the last file
let asked = 0;     // files given so far: the answer to an earlier one is not shown

const percent = (share) => `${(100 * share).toFixed(1)} %`;

async function begin() {
  facts = await (await fetch("about")).json();
  by("title").textContent = facts.names.join("  |  ");
  const most = `at most ${Math.round(facts.limits.bytes / 1e6)} MB and ${facts.limits.megapixels} megapixels`;
  by("limits").textContent = `PNG, JPEG, WebP, TIFF, BMP; ${facts.videos.join(", ")}; ${most}`;
  by("file").accept = ["image/*", "video/*", ...facts.videos].join(",");
  if (!facts.entropy) by("view").querySelector("[value=entropy]").remove();
  for (const name of facts.names) {
    const head = document.createElement("th");
    head.scope = "col";
    head.textContent = name;
    by("heads").append(head);
  }
}

function say(state, wrong = "") {
  by("state").textContent = state;
  by("wrong").textContent = wrong;
  by("wrong").hidden = !wrong;
}

async function look(file) {
  const number = ++asked;
  by("result").hidden = true;
  if (file.size > facts.limits.bytes) {
    say("", `${file.name}: ${(file.size / 1e6).toFixed(0)} MB are more than this page takes`);
    return;
  }
  say(`looking at ${file.name} …`);
  const begun = performance.now();
  try {
    const answer = await fetch(`look?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    const said = await answer.json();
    if (number !== asked) return;
    if (!answer.ok) {
      say("", said.error ?? "the server did not understand; load the page again");
      return;
    }
    frames = said.frames;
    const { width, height } = frames[0];
    say(`${file.name}, ${width} x ${height}, ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  } catch {
    if (number === asked) say("", "the server does not answer; is segda serve still running?");
    return;
  }
  by("frames").hidden = frames.length < 2;
  by("frame").max = frames.length - 1;
  by("frame").value = 0;
  by("result").hidden = false;
  draw();
}

function draw() {
  if (!frames.length) return;
  const frame = frames[Number(by("frame").value)];
  const view = by("view").value;
  by("second").textContent = frame.second === null ? "" : `${frame.second.toFixed(1)} s`;
  by("scale").hidden = view !== "entropy";
  // Of one network: the image alone on the left, and with its answer on the right.
  const sides = frame.seen.length > 1
    ? [[frame.seen[1], facts.names[1]], [frame.seen[0], facts.names[0]]]
    : [[null, "image"], [frame.seen[0], facts.names[0]]];
  sides.forEach(([seen, name], place) => {
    const side = by(place ? "right" : "left");
    const above = side.querySelector(".above");
    side.querySelector(".below").src = frame.image;
    const over = seen && (view === "entropy" ? seen.entropy : seen.label);
    above.hidden = !over;
    if (over) above.src = over;
    above.style.opacity = by("opacity").value / 100;
    side.querySelector(".tag").textContent = name;
  });
  by("stage").style.setProperty("--cut", `${by("cut").value / 10}%`);
  table(frame);
}

function row(title, cells, colour) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  if (colour) {
    const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", colour]]) square.setAttribute(name, value);
    key.append(square);
    head.append(key);
  }
  head.append(title);
  line.append(head);
  for (const text of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

function table(frame) {
  const order = facts.classes.map((_, place) => place);
  order.sort((one, other) => frame.seen[0].shares[other] - frame.seen[0].shares[one]);
  const there = order.filter((place) => frame.seen.some((seen) => seen.shares[place] > 0));
  const lines = there.map((place) => row(facts.classes[place].name, frame.seen.map((seen) => percent(seen.shares[place])),
                                         facts.classes[place].colour));
  if (frame.seen.some((seen) => seen.unsure !== null)) {
    const unsure = row("mean entropy, of ln C", frame.seen.map((seen) => (seen.unsure === null ? "–" : percent(seen.unsure))));
    unsure.className = "mean";
    lines.push(unsure);
  }
  by("shares").replaceChildren(...lines);
}

const drop = by("drop");
by("file").addEventListener("change", (event) => {
  if (event.target.files.length) look(event.target.files[0]);
  event.target.value = "";  // so that the same file can be given again
});
drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") by("file").click(); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length > 1) say("", "one file at a time");
    else if (kind === "drop" && event.dataTransfer.files.length) look(event.dataTransfer.files[0]);
  });
}
for (const id of ["view", "opacity", "frame", "cut"]) by(id).addEventListener("input", draw);
begin().catch(() => say("", "the server does not answer; is segda serve still running?"));
