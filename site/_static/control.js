// A lecture's slider without a kernel: of the pictures in the box, the one at its position is shown.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".frames")) {
    const slider = box.querySelector("input"), label = box.querySelector("output");
    const frames = [...box.querySelectorAll("img")];
    slider.addEventListener("input", () => {
      frames.forEach((frame, i) => { frame.hidden = i !== slider.valueAsNumber; });
      label.textContent = frames[slider.valueAsNumber].dataset.label;
      slider.setAttribute("aria-valuetext", label.textContent);
    });
  }
});
