"use strict";
// The slider of the heat map, and the patch at the place that is clicked. Patches come ranked, the most suspicious first.
(() => {
  const at = (id) => document.getElementById(id);
  const told = JSON.parse(at("told").textContent);
  const [left, top, width, height] = told.extent;
  const slide = at("slide"), mark = at("mark"), found = at("found"), canvas = at("patch"), sheet = at("sheet"), around = at("around");
  const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  let chosen = 0;

  const slider = at("opacity");
  if (slider) {
    slider.addEventListener("input", () => {
      at("cells").style.opacity = slider.value / 100;
      at("percent").textContent = slider.value + " %";
    });
  }

  // The patch whose centre is nearest, if the place is on it; else -1.
  function patchAt(x, y) {
    let best = -1, least = told.tile / 2;
    for (let i = 0; i < told.x.length; i++) {
      const far = Math.max(Math.abs(told.x[i] + told.tile / 2 - x), Math.abs(told.y[i] + told.tile / 2 - y));
      if (far <= least && (best < 0 || far < least)) { best = i; least = far; }
    }
    return best;
  }

  function line(text, strong) {
    const part = document.createElement(strong ? "b" : "div");
    part.textContent = text;
    return part;
  }

  function draw(i) {
    canvas.hidden = !(sheet && i < told.pictures);
    if (!canvas.hidden) picture(canvas, i, 0, 0);
    drawAround(i);
  }

  function picture(where, i, column, row) {
    const x = told.side * (i % told.across), y = told.side * Math.floor(i / told.across);
    where.getContext("2d").drawImage(sheet, x, y, told.side, told.side, told.side * column, told.side * row, told.side, told.side);
  }

  // The patches in the eight cells around a patch: number, column and row (-1 to 1).
  function beside(i) {
    const near = [];
    for (let j = 0; j < told.x.length; j++) {
      const column = Math.round((told.x[j] - told.x[i]) / told.step), row = Math.round((told.y[j] - told.y[i]) / told.step);
      if (j !== i && Math.abs(column) <= 1 && Math.abs(row) <= 1) near.push([j, column, row]);
    }
    return near;
  }

  // The patch in the middle of those around it; cells without a picture stay grey.
  function drawAround(i) {
    const near = beside(i).filter(([j]) => sheet && j < told.pictures);
    around.hidden = canvas.hidden || !near.length;
    if (around.hidden) return;
    const pen = around.getContext("2d"), side = told.side;
    pen.clearRect(0, 0, around.width, around.height);
    for (const [j, column, row] of [...near, [i, 0, 0]]) picture(around, j, 1 + column, 1 + row);
    pen.lineWidth = side / 16;
    pen.strokeRect(side, side, side, side);
  }

  function choose(i) {
    chosen = i;
    at("more").disabled = i <= 0;
    at("less").disabled = i >= told.x.length - 1;
    mark.hidden = false;
    mark.style.left = 100 * (told.x[i] - left) / width + "%";
    mark.style.top = 100 * (told.y[i] - top) / height + "%";
    mark.style.width = 100 * told.tile / width + "%";
    mark.style.height = 100 * told.tile / height + "%";
    draw(i);
    const lines = [line("prob " + told.prob[i].toFixed(3), true)];
    lines.push(line("x " + number(told.x[i]) + ", y " + number(told.y[i]) + " (" + told.unit + ")"));
    if (told.mpp) {
      const mm = (value) => (value * told.mpp / 1000).toFixed(2);
      lines.push(line(mm(told.x[i]) + " mm from the left, " + mm(told.y[i]) + " mm from the top"));
    }
    lines.push(line("number " + number(i + 1) + " of " + number(told.total) + " by prob"));
    if (told.label.length && told.label[i] >= 0) lines.push(line("label " + (told.label[i] ? "tumor" : "normal")));
    const near = beside(i).map(([j]) => told.prob[j]);
    if (near.length) {
      const mean = near.reduce((sum, prob) => sum + prob, 0) / near.length;
      lines.push(line("around it " + near.length + (near.length > 1 ? " patches" : " patch") + ", mean prob " + mean.toFixed(3)));
    }
    if (canvas.hidden) lines.push(line("no picture is kept of this patch"));
    found.replaceChildren(...lines);
  }

  slide.addEventListener("click", (event) => {
    const box = slide.getBoundingClientRect();
    const edge = slide.clientLeft;
    const x = left + (event.clientX - box.left - edge) / slide.clientWidth * width;
    const y = top + (event.clientY - box.top - edge) / slide.clientHeight * height;
    const i = patchAt(x, y);
    if (i >= 0) { choose(i); return; }
    mark.hidden = true;
    canvas.hidden = true;
    around.hidden = true;
    found.replaceChildren(line("no patch here"));
  });
  at("more").addEventListener("click", () => choose(Math.max(0, chosen - 1)));
  at("less").addEventListener("click", () => choose(Math.min(told.x.length - 1, chosen + 1)));

  document.documentElement.classList.add("live");
  if (sheet && !sheet.complete) sheet.addEventListener("load", () => draw(chosen));
  choose(0);
})();
