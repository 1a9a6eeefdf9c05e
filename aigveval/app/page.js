// What the page's own HTML does: seek where a defect is clicked, move the playhead, play two clips
// in step. Listens at the document, as cards come and go.
(() => {
  const near = (element, what) => element.closest?.(what);
  const pairOf = (element) => {
    const root = near(element, ".aigveval.pair");
    return root && { root, videos: [...root.querySelectorAll("video")] };
  };

  document.addEventListener("click", (event) => {
    const jump = near(event.target, "[data-seconds]");
    if (jump) {
      const video = near(jump, ".aigveval").querySelector("video");
      video.pause();
      video.currentTime = Number(jump.dataset.seconds);
    }
    const play = near(event.target, "[data-play]");
    if (play) {
      const { videos } = pairOf(play);
      const start = videos.every((video) => video.paused);
      if (start) {
        const ended = videos.every((video) => video.currentTime >= video.duration - 0.05);
        const at = ended ? 0 : Math.min(...videos.map((video) => video.currentTime));
        videos.forEach((video) => { video.currentTime = at; });
      }
      videos.forEach((video) => start ? video.play().catch(() => {}) : video.pause());
      play.textContent = start ? "Pause both" : "Play both";
    }
  });

  document.addEventListener("input", (event) => {
    const pair = near(event.target, ".together") && pairOf(event.target);
    if (!pair) return;
    const longest = Math.max(...pair.videos.map((video) => video.duration || 0));
    pair.videos.forEach((video) => { video.currentTime = event.target.value * longest; });
  });

  const tick = (event) => {
    const video = event.target;
    const card = near(video, ".aigveval.clipcard");
    if (card && video.duration) {
      card.style.setProperty("--at", `${100 * video.currentTime / video.duration}%`);
    }
    const pair = pairOf(video);
    if (!pair) return;
    const [first, second] = pair.videos;
    const playing = pair.videos.some((one) => !one.paused && !one.ended);
    if (playing && !first.ended && !second.ended
        && Math.abs(first.currentTime - second.currentTime) > 0.08) {
      second.currentTime = first.currentTime;
    }
    const at = Math.max(first.currentTime, second.currentTime);
    const longest = Math.max(first.duration || 0, second.duration || 0);
    const slider = pair.root.querySelector("input[type=range]");
    if (slider && document.activeElement !== slider && longest) slider.value = at / longest;
    pair.root.querySelector("output").textContent = `${at.toFixed(1)} s`;
    if (!playing) pair.root.querySelector("[data-play]").textContent = "Play both";
  };
  for (const kind of ["timeupdate", "seeked", "ended"]) document.addEventListener(kind, tick, true);

  document.addEventListener("error", (event) => {
    const video = event.target;
    if (video.tagName !== "VIDEO" || !near(video, ".aigveval") || video.hidden) return;
    video.hidden = true;
    const note = document.createElement("p");
    note.className = "none";
    note.textContent = "this browser can't play the file; scores and frames are as they should be";
    video.after(note);
  }, true);
})();
