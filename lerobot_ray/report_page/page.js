// Hover only: the page is complete without it. Each chart carries the numbers it shows.
(() => {
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip" }));
  const svgNs = "http://www.w3.org/2000/svg";
  const shown = (value) =>
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  const nearest = (steps, step) => {
    let low = 0, high = steps.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] < step) low = middle; else high = middle;
    }
    return Math.abs(steps[low] - step) <= Math.abs(steps[high] - step) ? low : high;
  };
  const safe = (words) => Object.assign(document.createElement("span"), { textContent: words }).innerHTML;
  for (const chart of document.querySelectorAll("svg.chart")) {
    const { plot: [left, top, right, bottom], last, unit, curves } = JSON.parse(chart.dataset.chart);
    const cursor = chart.querySelector(".cursor");
    const drawn = curves.filter((curve) => curve.x.length);
    if (!drawn.length) continue;
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect(), units = chart.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * units;
      if (x < left - 5 || x > right + 5) return leave();
      const wanted = ((x - left) / (right - left)) * last;
      const densest = drawn.reduce((most, curve) => (curve.x.length > most.x.length ? curve : most));
      const step = densest.x[nearest(densest.x, wanted)];
      const place = left + (step / last) * (right - left);
      const line = document.createElementNS(svgNs, "line");
      for (const [name, value] of Object.entries({ x1: place, x2: place, y1: top, y2: bottom })) line.setAttribute(name, value);
      cursor.replaceChildren(line);
      tip.innerHTML = `<small>step ${step.toLocaleString("en")}</small>` + drawn.map((curve) => {
        const number = nearest(curve.x, step);
        return `<div><i class=${curve.colour}></i>${safe(curve.name)}<b>${shown(curve.y[number])}${safe(unit)}</b></div>`;
      }).join("");
      tip.style.display = "block";
      const wide = tip.offsetWidth, over = event.clientX + wide + 30 > innerWidth;
      tip.style.left = `${event.clientX + scrollX + (over ? -wide - 16 : 16)}px`;
      tip.style.top = `${event.clientY + scrollY + 14}px`;
    });
    const leave = () => { cursor.replaceChildren(); tip.style.display = "none"; };
    chart.addEventListener("pointerleave", leave);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
})();
