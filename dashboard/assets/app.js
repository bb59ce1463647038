"use strict";
(function () {
  const dash = (window.dash_clientside = Object.assign({}, window.dash_clientside));

  dash.mmaudit = {
    // The drawing in the colours of the reader's theme.
    draw: function (drawing, scheme, templates) {
      if (!drawing || !templates) {
        return dash.no_update;
      }
      const layout = Object.assign({}, drawing.layout, {
        template: templates[scheme === "dark" ? "dark" : "light"],
        autosize: true,
      });
      if (window.innerWidth < 560 && layout.coloraxis) {
        // The numbers are in the cells and in the table; the cells need the room.
        layout.coloraxis = Object.assign({}, layout.coloraxis, { showscale: false });
      }
      return { data: drawing.data, layout: layout };
    },

    // What neither Mantine nor plotly paints follows the theme too: the grids.
    theme: function (scheme) {
      document.documentElement.dataset.agThemeMode = scheme === "dark" ? "dark" : "light";
      return scheme === "dark" ? "true" : "false";
    },

    // A new page: its title, its place in the navigation, its beginning, and a word for those who do not see it.
    arrive: function (page) {
      if (!page) {
        return dash.no_update;
      }
      document.title = page.title;
      for (const place of document.querySelectorAll("nav .place")) {
        const here = place.id.indexOf('"' + page.place + '"') >= 0;
        if (here) {
          place.setAttribute("aria-current", "page");
        } else {
          place.removeAttribute("aria-current");
        }
      }
      window.scrollTo(0, 0);
      return page.title;
    },

    // The list of audits, searched. All options stay: the grid may not have been built from the first ones yet.
    search: function (text, options) {
      return Object.assign({}, options, { quickFilterText: text || "" });
    },
  };

  const parts = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});

  // A cell that leads to a page of the app; its text is text and never markup.
  parts.RecordLink = function (props) {
    if (!props.data) {
      return null;
    }
    return React.createElement(
      window.dash_core_components.Link,
      { href: props.data.href, setProps: function () {}, title: props.value },
      props.value
    );
  };
})();
