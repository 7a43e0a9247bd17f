// A table that is wider than the screen scrolls by itself, so it must be reachable by keyboard.
document$.subscribe(() => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
});
