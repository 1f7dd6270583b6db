"use strict";
(() => {
  const box = document.getElementById("cards");
  if (!box) return;
  const form = document.getElementById("filters");
  const large = document.getElementById("large");
  const stage = document.getElementById("stage");
  const zoom = document.getElementById("zoom");
  const zoomed = () => zoom.getAttribute("aria-pressed") === "true";
  const cards = [...box.children].map((node) => ({
    node,
    button: node.querySelector("button"),
    image: node.querySelector("img"),
    id: node.dataset.id,
    units: JSON.parse(node.dataset.units),
    why: node.dataset.why.split(" "),
    fold: node.dataset.fold,
    cluster: node.dataset.cluster,
    mates: Number(node.dataset.mates),
    loss: Number(node.dataset.loss),
    score: Number(node.dataset.score),
    area: Number(node.dataset.area),
  }));
  let shown = cards;
  let opened = null;

  // A data URI is decoded as soon as it is set, however far away: so it is set late.
  const load = (card) => {
    if (card.image && card.image.dataset.src) {
      card.image.src = card.image.dataset.src;
      delete card.image.dataset.src;
    }
  };
  const near = new IntersectionObserver(
    (seen) => {
      for (const one of seen) {
        if (!one.isIntersecting) continue;
        load(cards.find((card) => card.node === one.target));
        near.unobserve(one.target);
      }
    },
    { rootMargin: "800px" },
  );
  for (const card of cards) near.observe(card.node);

  const value = (name) => form.elements[name].value;
  const unitsOf = (card) =>
    card.units.filter(
      (unit) =>
        (!value("class") || String(unit.c) === value("class")) &&
        (!value("kind") || unit.k === value("kind")),
    );
  const cost = (card) =>
    value("class") || value("kind")
      ? unitsOf(card).reduce((sum, unit) => sum + unit.l, 0)
      : card.loss;
  const lowest = (card) => Math.min(1, ...unitsOf(card).map((unit) => unit.s));
  const fits = (card) => {
    const cluster = value("cluster");
    return (
      (!value("why") || card.why.includes(value("why"))) &&
      ((!value("class") && !value("kind")) || unitsOf(card).length > 0) &&
      (!value("fold") || card.fold === value("fold")) &&
      (!cluster || (cluster === "many" ? card.mates > 1 : card.cluster === cluster)) &&
      card.id.toLowerCase().includes(value("search").trim().toLowerCase())
    );
  };
  const order = {
    loss: (a, b) => cost(b) - cost(a),
    score: (a, b) => lowest(a) - lowest(b),
    area: (a, b) => b.area - a.area,
    id: () => 0,
  };

  const update = () => {
    const by = order[value("sort")];
    const sorted = [...cards].sort((a, b) => by(a, b) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    shown = sorted.filter(fits);
    const keep = new Set(shown);
    for (const card of cards) card.node.hidden = !keep.has(card);
    box.append(...sorted.map((card) => card.node));
    const total = shown.reduce((sum, card) => sum + cost(card), 0);
    document.getElementById("count").textContent =
      `${shown.length} of ${cards.length} images; they cost ${total.toFixed(5)} of the score`;
    document.getElementById("nothing").hidden = shown.length > 0;
    document.body.classList.toggle("hide-true", !form.elements.truth.checked);
    document.body.classList.toggle("hide-said", !form.elements.said.checked);
  };
  const clear = () => {
    form.reset();
    update();
  };

  const open = (card) => {
    opened = card;
    load(card);
    const frame = card.button;
    const picture = document.createElement("div");
    picture.className = "picture";
    picture.append(...[...frame.childNodes].map((child) => child.cloneNode(true)));
    stage.replaceChildren(picture);
    document.getElementById("about").replaceChildren(card.node.querySelector(".facts").cloneNode(true));
    document.getElementById("place").textContent = `${shown.indexOf(card) + 1} of ${shown.length}`;
    if (!large.open) {
      const strip = card.image && card.image.getAttribute("width") > 2.5 * card.image.getAttribute("height");
      zoom.setAttribute("aria-pressed", String(window.innerWidth < 600 && Boolean(strip)));
      large.showModal();
    }
    size();
  };
  // As large as the window lets it be; or its own pixels, or at least 240 px high, to scroll in.
  const size = () => {
    const picture = stage.firstElementChild;
    const image = opened && opened.image;
    if (!picture || !image) return;
    const [wide, high] = [Number(image.getAttribute("width")), Number(image.getAttribute("height"))];
    const whole = Math.min(stage.clientWidth / wide, (window.innerHeight - 220) / high);
    const scale = zoomed() ? Math.max(1, whole, 240 / high) : whole;
    picture.style.width = `${wide * scale}px`;
    picture.style.height = `${high * scale}px`;
    for (const text of picture.querySelectorAll("text")) text.setAttribute("font-size", 15 / scale);
    // What is larger than the window begins at its first outline.
    const first = picture.querySelector("g path");
    stage.scrollLeft = first ? first.getBBox().x * scale - stage.clientWidth / 3 : 0;
  };
  const step = (by) => {
    const at = shown.indexOf(opened) + by;
    if (at >= 0 && at < shown.length) open(shown[at]);
  };
  const focus = (card) => {
    card.button.focus();
    card.node.scrollIntoView({ block: "nearest" });
  };
  const move = (by) => {
    const at = shown.findIndex((card) => card.button === document.activeElement);
    const next = at < 0 ? shown[0] : shown[at + by];
    if (next) focus(next);
  };
  const columns = () => {
    const top = shown.length ? shown[0].node.offsetTop : 0;
    return Math.max(1, shown.filter((card) => card.node.offsetTop === top).length);
  };
  const toggle = (name) => {
    form.elements[name].click();
  };

  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", clear);
  document.getElementById("close").addEventListener("click", () => large.close());
  zoom.addEventListener("click", () => {
    zoom.setAttribute("aria-pressed", String(!zoomed()));
    size();
  });
  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => step(Number(button.dataset.go)));
  }
  large.addEventListener("click", (event) => event.target === large && large.close());
  large.addEventListener("close", () => {
    stage.replaceChildren();
    if (opened) focus(opened);
    opened = null;
  });
  window.addEventListener("resize", size);
  box.addEventListener("click", (event) => {
    const button = event.target.closest(".frame");
    if (button) open(cards.find((card) => card.button === button));
  });
  for (const link of document.querySelectorAll("[data-open]")) {
    const card = cards.find((one) => one.id === link.dataset.open);
    if (card) link.addEventListener("click", () => open(card));
    else link.replaceWith(link.textContent);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writing = event.target.matches("input[type=search], select");
    if (large.open) {
      const inside = event.target === stage && zoomed();
      if (event.key === "ArrowRight" && !inside) step(1);
      else if (event.key === "ArrowLeft" && !inside) step(-1);
      else if (event.key === "t") toggle("truth");
      else if (event.key === "p") toggle("said");
      else return;
      event.preventDefault();
      return;
    }
    if (event.key === "Escape") {
      clear();
      event.target.blur();
      return;
    }
    if (writing) return;
    const onCard = Boolean(event.target.closest(".frame"));
    const moves = { ArrowRight: 1, ArrowLeft: -1 };
    if (onCard) Object.assign(moves, { ArrowDown: columns(), ArrowUp: -columns() });
    if (event.key in moves && (onCard || event.target === document.body)) move(moves[event.key]);
    else if (event.key === "/") form.elements.search.focus();
    else if (event.key === "t") toggle("truth");
    else if (event.key === "p") toggle("said");
    else return;
    event.preventDefault();
  });
  update();
})();
