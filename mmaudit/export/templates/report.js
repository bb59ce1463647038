"use strict";
(function () {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let printing = false;

  function draw() {
    const template = page.templates[dark.matches && !printing ? "dark" : "light"];
    for (const figure of page.figures) {
      const place = document.getElementById(figure.id);
      const layout = Object.assign({}, figure.layout, { template: template });
      if (place.clientWidth < 480 && layout.coloraxis) {
        // The numbers are in the cells and in the table; the cells need the room.
        layout.coloraxis = Object.assign({}, layout.coloraxis, { showscale: false });
      }
      if (printing) {
        layout.width = 660;
      } else {
        layout.autosize = true;
      }
      Plotly.react(place, figure.data, layout, page.config);
    }
  }

  draw();
  dark.addEventListener("change", draw);

  const folded = [];
  window.addEventListener("beforeprint", function () {
    printing = true;
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      folded.push(part);
    }
    draw();
  });
  window.addEventListener("afterprint", function () {
    printing = false;
    while (folded.length) {
      folded.pop().open = false;
    }
    draw();
  });
})();
