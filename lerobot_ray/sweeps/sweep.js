// Pointing only: the page is complete without it. A trial pointed at in one place is shown in all.
(() => {
  const trials = JSON.parse(document.getElementById("trials-data").textContent);
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip" }));
  const marks = document.querySelectorAll("[data-trial]");
  const element = (kind, words) => Object.assign(document.createElement(kind), { textContent: words });
  const show = (number, event) => {
    document.body.classList.add("picking");
    for (const mark of marks) {
      const is = mark.dataset.trial === number;
      mark.classList.toggle("on", is);
      mark.closest("tr")?.classList.toggle("on", is);
    }
    const { name, status, rows } = trials[number];
    tip.replaceChildren(element("small", `${name}, ${status}`));
    for (const [key, value] of rows) {
      const row = element("div", key);
      row.append(element("b", value));
      tip.append(row);
    }
    tip.style.display = "block";
    const over = event.clientX + tip.offsetWidth + 30 > innerWidth;
    tip.style.left = `${event.clientX + scrollX + (over ? -tip.offsetWidth - 16 : 16)}px`;
    tip.style.top = `${event.clientY + scrollY + 14}px`;
  };
  const leave = () => {
    document.body.classList.remove("picking");
    for (const mark of marks) {
      mark.classList.remove("on");
      mark.closest("tr")?.classList.remove("on");
    }
    tip.style.display = "none";
  };
  for (const mark of marks) {
    const target = mark.closest("tr") ?? mark;
    target.addEventListener("pointermove", (event) => show(mark.dataset.trial, event));
    target.addEventListener("pointerleave", leave);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
})();
