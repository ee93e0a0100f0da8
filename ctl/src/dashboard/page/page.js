"use strict";

async function show() {
  const answer = await fetch("/api/state");
  document.getElementById("state").textContent = await answer.text();
}

new EventSource("/api/events").addEventListener("changed", show);
