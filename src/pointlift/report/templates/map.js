// The maps: a dot is pointed at and chosen, in all maps at once; the chosen cloud and its neighbours are shown.
(() => {
  const data = pageData.map;
  const maps = [...document.querySelectorAll("[data-map]")].map((svg) => {
    const dots = [];
    for (const dot of svg.querySelectorAll("circle[data-i]")) dots[Number(dot.dataset.i)] = dot;
    const at = dots.map((dot) => [Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))]);
    return { svg, dots, at };
  });
  const REACH = 14; // units of the view box within which a dot is pointed at
  const output = document.getElementById("map-reading");
  const tileOf = (figure) => Clouds.tiles.find((tile) => tile.canvas === figure.querySelector("canvas"));
  const main = document.getElementById("chosen-cloud");
  const around = [...document.querySelectorAll("#near-clouds .tile")];
  const className = (i) => (data.labels[i] >= 0 ? data.classes[data.labels[i]] : "");
  let chosen = 0;
  let alone = null; // the class that is shown alone

  const text = (name, words, kind = "") => {
    const node = document.createElement(name);
    node.textContent = words;
    node.className = kind;
    return node;
  };
  function read(i) {
    const named = className(i);
    output.replaceChildren(text("b", named || data.names[i]), text("span", named ? ` ${data.names[i]}` : ""));
  }
  function mark(kind, i) {
    for (const { svg, at } of maps) {
      const ring = svg.querySelector(`.${kind}`);
      ring.setAttribute("visibility", i === null ? "hidden" : "visible");
      if (i !== null) { ring.setAttribute("cx", at[i][0]); ring.setAttribute("cy", at[i][1]); }
    }
  }
  function put(figure, i, more) {
    const canvas = figure.querySelector("canvas");
    const named = className(i);
    if (named) canvas.style.setProperty("--right", data.palette[data.labels[i]]);
    else canvas.style.removeProperty("--right");
    const says = `Point cloud ${data.names[i]}${named ? `, ${named}` : ""}`;
    canvas.dataset.says = says;
    canvas.setAttribute("aria-label", `${says}. Enter shows it large, arrow keys turn it.`);
    const caption = [text("b", named || data.names[i])];
    if (named) caption.push(text("span", data.names[i], "file-name"));
    if (more) caption.push(text("span", more, "soft block"));
    figure.querySelector("figcaption").replaceChildren(...caption);
    Clouds.put(tileOf(figure), i);
  }
  function choose(i) {
    chosen = i;
    mark("mark", i);
    read(i);
    put(main, i, "");
    around.forEach((figure, k) => put(figure, data.near[i][k], `cosine ${data.cosine[i][k].toFixed(3)}`));
    for (const { svg, at } of maps) {
      const rings = data.near[i].map((j) => {
        const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        ring.setAttribute("cx", at[j][0]);
        ring.setAttribute("cy", at[j][1]);
        ring.setAttribute("r", 6);
        return ring;
      });
      svg.querySelector(".near-marks").replaceChildren(...rings);
    }
  }
  const seen = (i) => alone === null || data.labels[i] === alone;

  for (const { svg, at } of maps) {
    const nearest = (event) => {
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null, least = REACH * REACH;
      at.forEach(([u, v], i) => {
        const far = (u - x) ** 2 + (v - y) ** 2;
        if (far < least && seen(i)) { least = far; best = i; }
      });
      return best;
    };
    svg.addEventListener("pointermove", (event) => {
      const i = nearest(event);
      mark("pointed", i);
      read(i ?? chosen);
    });
    svg.addEventListener("pointerleave", () => { mark("pointed", null); read(chosen); });
    svg.addEventListener("click", (event) => {
      const i = nearest(event);
      if (i !== null) choose(i);
    });
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Enter") { event.preventDefault(); Clouds.enlarge(tileOf(main)); return; }
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      // Straight ahead counts once, sideways three times: the next dot that way, not the nearest of all.
      let best = null, least = Infinity;
      at.forEach(([u, v], i) => {
        const ahead = (u - at[chosen][0]) * way[0] + (v - at[chosen][1]) * way[1];
        const aside = Math.abs((u - at[chosen][0]) * way[1] + (v - at[chosen][1]) * way[0]);
        if (i === chosen || !seen(i) || ahead <= 0) return;
        if (ahead + 3 * aside < least) { least = ahead + 3 * aside; best = i; }
      });
      if (best !== null) choose(best);
    });
  }

  const keys = [...document.querySelectorAll(".class-keys [data-class]")];
  for (const key of keys) {
    key.addEventListener("click", () => {
      const label = Number(key.dataset.class);
      alone = alone === label ? null : label;
      for (const other of keys) other.setAttribute("aria-pressed", String(Number(other.dataset.class) === alone));
      for (const { svg } of maps) {
        for (const group of svg.querySelectorAll("g[data-class]")) group.classList.toggle("dim", alone !== null && Number(group.dataset.class) !== alone);
      }
    });
  }
  choose(0);
})();
