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

    download(id) {
        document.querySelector(id).click();
    },
};
