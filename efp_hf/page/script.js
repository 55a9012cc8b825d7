// What Gradio's components cannot do themselves; layout.py says where each is called.
window.efp = {
    // The slider between the photo and the lesion: its place survives a redraw.
    followCut(element, watch) {
        const apply = (cut) => {
            element.style.setProperty("--cut", cut + "%");
            element.dataset.cut = cut;
        };
        element.addEventListener("input", (event) => apply(event.target.value));
        watch("value", () => {
            const input = element.querySelector(".efp-cut input");
            if (input) {
                input.value = element.dataset.cut ?? 100;
                apply(input.value);
            }
        });
    },

    // On a phone the result is below what was pressed.
    showResult() {
        const view = document.querySelector("#view");
        if (view && view.getBoundingClientRect().top > 0.8 * window.innerHeight) view.scrollIntoView({block: "start"});
    },

    // Gradio's names of these for screen readers are not the texts that they show (WCAG 2.5.3).
    nameByText() {
        const areas = "#files .upload-container, #examples .thumbnail-item";
        setTimeout(() => document.querySelectorAll(areas).forEach((area) => area.removeAttribute("aria-label")), 100);
    },

    // On a picture that takes clicks the arrow keys move a cross, and Enter clicks where it is.
    moveCross(event) {
        const button = event.target.closest(".efp-picture button");
        const image = button?.querySelector("img");
        const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
        if (!image || !(step || event.key === "Enter" || event.key === " ")) return;
        event.preventDefault();
        const place = (button.dataset.cross ?? "0.5 0.5").split(" ").map(Number);
        const area = image.getBoundingClientRect(), frame = button.getBoundingClientRect();
        if (step) {
            const size = (event.shiftKey ? 0.004 : 0.02) * Math.max(area.width, area.height);
            [area.width, area.height].forEach((side, axis) => {
                place[axis] = Math.min(Math.max(place[axis] + step[axis] * size / side, 0), 0.999);
            });
            button.dataset.cross = place.join(" ");
        }
        const [x, y] = [area.left + place[0] * area.width, area.top + place[1] * area.height];
        button.style.setProperty("--cross-x", x - frame.left + "px");
        button.style.setProperty("--cross-y", y - frame.top + "px");
        if (!step) image.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: x, clientY: y}));
    },

    download(id) {
        document.querySelector(id).click();
    },
};
document.addEventListener("keydown", efp.moveCross);
