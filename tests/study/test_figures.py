import runpy
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, tiny_model

from efp_hf import EFPImageProcessor
from efp_hf.data.folders import load_isic
from efp_hf.data.synthetic import write_synthetic_isic
from efp_hf.inference.checkpoint import load_checkpoint, weights_digest
from efp_hf.inference.drawing import draw_agreement
from efp_hf.metrics import bootstrap_interval, confusion_counts, jaccard
from efp_hf.metrics.calibration import NUM_BINS
from efp_hf.metrics.evaluation import model_masks
from efp_hf.metrics.rows import append_row, write_rows
from efp_hf.study.comparison import SYSTEMS, Run, new_system
from efp_hf.study.figures import (
    LOOKS,
    accuracy_figure,
    choose_images,
    jaccards_figure,
    latency_figure,
    levels_figure,
    load_system,
    masks_figure,
    model_folders,
    read_bins,
    reliability_figure,
    save_figure,
)

SCRIPT = REPOSITORY / "scripts" / "report.py"


def write_run(results, run: Run, hits: list[int], parameters: int = 2_500_000, image_ids=None) -> None:
    """A run whose image k has `hits[k]` right lesion pixels of 100, so a Jaccard of `hits[k] / 100`."""
    image_ids = image_ids or [f"{k:03d}" for k in range(len(hits))]
    counts = [{"tp": hit, "fp": 0, "fn": 100 - hit, "tn": 900} for hit in hits]
    rows = [{"image_id": image_id, **count} for image_id, count in zip(image_ids, counts, strict=True)]
    write_rows(rows, results / "comparison" / f"{run.name}.csv")
    row = {"track": run.track, "system": run.system, "variant": run.variant, "seed": run.seed}
    append_row(results / "comparison.csv", row | {"parameters": parameters})


@pytest.fixture
def results(tmp_path):
    """Two systems of one track, one of the other, a variant."""
    results = tmp_path / "results"
    write_run(results, Run("pretrained", "efp"), [90, 80, 64, 65], parameters=4_000_000)
    write_run(results, Run("pretrained", "efp", variant="no attention"), [10, 10, 10, 10])
    write_run(results, Run("pretrained", "unet"), [70, 60, 60, 10], parameters=6_000_000)
    write_run(results, Run("scratch", "segformer"), [30, 20, 30, 20])
    return results


def write_bins(results, checkpoint, bins: np.ndarray, region: str, split="test", temperature=1.0) -> None:
    """The rows that `scripts/measure.py trust` writes of a sum of `count_bins`."""
    for number, (pixels, probability, lesion) in enumerate(bins):
        means = {"mean_probability": probability, "lesion_share": lesion}
        row = {"split": split, "weights": weights_digest(checkpoint), "temperature": temperature}
        row |= {"pixels_of": region, "bin": number, "pixels": int(pixels)}
        row |= {name: value / pixels if pixels else "" for name, value in means.items()}
        append_row(results / "reliability.csv", row)


def two_full_bins(lesion: float) -> np.ndarray:
    """30 pixels of probability 0.02, none of them lesion, and 10 of 0.98."""
    bins = np.zeros((NUM_BINS, 3))
    bins[0], bins[-1] = (30, 0.6, 0), (10, 9.8, lesion)
    return bins


@pytest.fixture(scope="module")
def isic(tmp_path_factory):
    root = write_synthetic_isic(tmp_path_factory.mktemp("data") / "isic", num_images=60, height=48, width=64)
    return root, load_isic(root)["test"]


# Accuracy and Jaccards


def panels_of(figure) -> dict[str, dict]:
    """Title of each panel → label → what is drawn."""
    return {
        axes.get_title(): {label: drawn for drawn, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        for axes in figure.axes
    }


def test_accuracy_shows_the_mean_with_its_interval_at_the_parameters(results):
    drawn = panels_of(accuracy_figure(results))["encoder from ImageNet, 192² pixels"]["U-Net"]
    point, _, (bar,) = drawn.lines
    assert point.get_xydata().tolist() == [[6.0, pytest.approx(0.5)]]
    low, high = bootstrap_interval(np.array([0.7, 0.6, 0.6, 0.1]))
    assert bar.get_segments()[0][:, 1] == pytest.approx([low, high])


def write_latency(results, started: str, system: str, runtime: str, milliseconds: float) -> None:
    row = {"started": started, "system": system, "runtime": runtime, "batch_size": 1, "image_size": 192}
    append_row(results / "speed_frontier.csv", row | {"median_ms": milliseconds})


def test_latency_shows_the_mean_at_the_time_of_one_image_in_each_runtime(results):
    write_latency(results, "1", "EFP", "torch", 99.0)  # of an earlier run
    write_latency(results, "2", "EFP", "torch", 40.0)
    write_latency(results, "2", "EFP", "openvino", 10.0)
    write_latency(results, "2", "U-Net", "openvino", 30.0)
    write_latency(results, "2", "U-Net", "openvino int8", 5.0)  # its accuracy is another
    write_latency(results, "2", "SegFormer-B0", "openvino", 20.0)  # not a system of the comparison
    write_latency(results, "2", "SegFormer's decoder", "openvino", 20.0)  # trained in the other track only
    points = {
        title: {label: bars.lines[0].get_xydata().tolist() for label, bars in drawn.items()}
        for title, drawn in panels_of(latency_figure(results)).items()
    }
    efp, unet = pytest.approx(0.7475), pytest.approx(0.5)
    assert latency_figure(results).axes[0].get_xlabel() == "ms an image of 192² (log scale)"
    assert points == {"PyTorch": {"EFP": [[40.0, efp]]}, "OpenVINO": {"EFP": [[10.0, efp]], "U-Net": [[30.0, unet]]}}


def test_latency_of_systems_without_accuracy_is_no_figure(results):
    write_latency(results, "2", "SegFormer's decoder", "openvino", 20.0)
    with pytest.raises(FileNotFoundError, match="compare.py --data ISIC_FOLDER --track pretrained"):
        latency_figure(results)


def test_latency_that_is_not_measured_names_the_command(results):
    with pytest.raises(FileNotFoundError, match="no latency is measured.*benchmark.py frontier"):
        latency_figure(results)


@pytest.mark.parametrize("make", [accuracy_figure, jaccards_figure])
def test_each_track_has_its_own_panel_without_the_others_systems_or_variants(results, make):
    panels = panels_of(make(results))
    assert {title: list(drawn) for title, drawn in panels.items()} == {
        "encoder from ImageNet, 192² pixels": ["U-Net", "EFP"],
        "from scratch, 128² pixels": ["SegFormer"],
    }
    (legend,) = make(results).legends
    assert [text.get_text() for text in legend.get_texts()] == ["U-Net", "SegFormer", "EFP"]


def test_jaccards_reach_the_failure_rate_at_the_line(results):
    figure = jaccards_figure(results)
    line = panels_of(figure)["encoder from ImageNet, 192² pixels"]["EFP"]
    below = line.get_ydata()[line.get_xdata() < 0.65].max()
    assert below == 1 / 4  # 0.64; the image of just 0.65 is no failure
    assert [0.65, 0.65] in [list(line.get_xdata()) for line in figure.axes[0].lines]


def test_images_of_all_seeds_are_in_the_distribution(results):
    write_run(results, Run("pretrained", "efp", seed=1), [10, 20, 64, 65])
    line = panels_of(jaccards_figure(results))["encoder from ImageNet, 192² pixels"]["EFP"]
    assert line.get_ydata()[line.get_xdata() < 0.65].max() == 4 / 8


def test_every_system_has_a_look_of_its_own():
    assert set(LOOKS) == set(SYSTEMS)
    for looks in zip(*LOOKS.values(), strict=True):
        assert len(set(looks)) == len(SYSTEMS)


def test_comparison_without_rows_or_images_names_the_command(results, tmp_path):
    with pytest.raises(FileNotFoundError, match="none/comparison.csv: no such .*compare.py --data .* pretrained"):
        accuracy_figure(tmp_path / "none")
    (results / "comparison" / "scratch-segformer-seed0.csv").unlink()
    with pytest.raises(FileNotFoundError, match="scratch-segformer-seed0.csv: no such .*compare.py .* --track scratch"):
        jaccards_figure(results)


# Reliability


def test_reliability_points_are_the_means_of_the_bins(results, tiny_checkpoint):
    write_bins(results, tiny_checkpoint, two_full_bins(lesion=6), "all")
    write_bins(results, tiny_checkpoint, two_full_bins(lesion=3), "border")
    panel, histogram = reliability_figure(results, tiny_checkpoint).axes
    diagonal, everywhere, border = panel.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert everywhere.get_xydata() == pytest.approx(np.array([[0.02, 0], [0.98, 0.6]]))
    assert border.get_xydata() == pytest.approx(np.array([[0.02, 0], [0.98, 0.3]]))
    # (30 · 0.02 + 10 · |0.98 - share|) / 40
    assert everywhere.get_label() == "all pixels: calibration error 0.110"
    assert border.get_label() == "pixels near the true border: calibration error 0.185"
    assert [bar.get_height() for bar in histogram.patches[:NUM_BINS]] == [0.75, *[0] * (NUM_BINS - 2), 0.25]


def test_reliability_is_of_the_newest_rows_of_these_weights_and_temperature(results, tiny_checkpoint):
    for region in ("all", "border"):
        write_bins(results, tiny_checkpoint, two_full_bins(lesion=1), region)
        write_bins(results, tiny_checkpoint, two_full_bins(lesion=7), region)
        write_bins(results, tiny_checkpoint, two_full_bins(lesion=2), region, split="validation")
        write_bins(results, tiny_checkpoint, two_full_bins(lesion=3), region, temperature=1.5)
        write_bins(results, results, two_full_bins(lesion=4), region)  # a folder without weights
    for bins in read_bins(results / "reliability.csv", tiny_checkpoint).values():
        assert bins == pytest.approx(two_full_bins(lesion=7))


def test_reliability_of_other_weights_names_the_command(results, tiny_checkpoint):
    with pytest.raises(FileNotFoundError, match=r"reliability.csv: no such file. Run `python scripts/measure.py trust"):
        reliability_figure(results, tiny_checkpoint)
    write_bins(results, results, two_full_bins(lesion=4), "all")
    with pytest.raises(ValueError, match="no row of the test split for .*tiny .*measure.py trust"):
        reliability_figure(results, tiny_checkpoint)


# Masks


@pytest.mark.parametrize(
    ("num_images", "ranks"),
    [(9, [8, 7, 5, 4, 3, 2, 1, 0]), (12, [11, 10, 6, 5, 3, 2, 1, 0]), (519, [518, 517, 260, 259, 130, 129, 1, 0])],
)
def test_chosen_images_are_the_right_ranks(num_images, ranks):
    order = np.random.default_rng(0).permutation(num_images)
    chosen = choose_images(order / num_images)
    assert [order[position] for _, position in chosen] == ranks
    assert [rank for rank, _ in chosen] == [
        rank for rank in ("best", "median", "lower quartile", "worst") for _ in range(2)
    ]


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="`jaccards` must be of at least 9 images, got 8"):
        choose_images(np.arange(8) / 8)


def save_system(folder, run: Run, size: int = 32, model=None) -> None:
    (model or new_system(run)).save_pretrained(folder)
    EFPImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)


def test_models_load_by_their_model_type(tmp_path, tiny_checkpoint):
    save_system(tmp_path / "segformer", Run("scratch", "segformer"))
    for folder, name in ((tmp_path / "segformer", "BaselineForSegmentation"), (tiny_checkpoint, "EFPForSegmentation")):
        model, processor = load_system(folder)
        assert type(model).__name__ == name and not model.training
        assert processor.size["height"] == 32
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="`model_type` must be one of efp, efp_baseline, got 'bert'"):
        load_system(tmp_path)


def pictures_of(figure) -> list[np.ndarray]:
    return [axes.images[0].get_array() for axes in figure.axes]


def test_masks_show_the_chosen_images_with_truth_masks_and_their_jaccard(results, isic, tiny_checkpoint):
    _, dataset = isic
    image_ids = dataset["image_id"][:]
    hits = [50 + k for k in range(len(image_ids))]
    hits[3], hits[1] = 0, 99  # the worst and the best
    write_run(results, Run("scratch", "efp"), hits[::-1], image_ids=image_ids[::-1])  # not in the dataset's order
    figure = masks_figure(results, "scratch", dataset, {"efp": tiny_checkpoint})
    pictures = pictures_of(figure)
    assert len(pictures) == 8 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "truth", "EFP"]
    found = list(model_masks(dataset, *load_system(tiny_checkpoint)))
    for row, position, rank in ((0, 1, "best"), (7, 3, "worst")):
        image_id, mask, truth = found[position]
        image = dataset[position]["image"]
        assert figure.axes[3 * row].get_ylabel() == f"{rank}\n{image_id}"
        assert np.array_equal(pictures[3 * row], np.asarray(image))
        assert np.array_equal(pictures[3 * row + 1][..., 0] > 128, truth)
        assert np.array_equal(pictures[3 * row + 2], draw_agreement(image, mask, truth))
        assert figure.axes[3 * row + 2].texts[0].get_text() == f"J {jaccard(confusion_counts(mask, truth)):.2f}"


def test_masks_refuse_another_dataset_and_no_model(results, isic, tiny_checkpoint):
    write_run(results, Run("scratch", "efp"), list(range(20, 32)))
    with pytest.raises(ValueError, match="031: not among|011: not among the .* test images"):
        masks_figure(results, "scratch", isic[1], {"efp": tiny_checkpoint})
    with pytest.raises(ValueError, match="`folders` must have a trained model of the track scratch"):
        masks_figure(results, "scratch", isic[1], {})


# Levels


def test_levels_show_the_maps_of_the_model(isic, tiny_checkpoint):
    _, dataset = isic
    model, processor = load_checkpoint(tiny_checkpoint)
    axes = levels_figure(dataset[2]["image"], model, processor).axes
    shown = np.array([panel.images[0].get_array() for panel in axes[:15]], dtype=object).reshape(3, 5)
    with torch.inference_mode():
        inputs = processor([dataset[2]["image"]], return_tensors="pt")
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    maps = [level.mean(1)[0].numpy() for level in (*outputs.hidden_states, *outputs.attentions)]
    for expected, found in zip(maps, shown[:, 1:].ravel(), strict=True):
        assert np.allclose(found, expected, atol=1e-6)
    assert axes[11].images[0].get_clim() == (0, 1)
    assert axes[1].get_title() == "level 1, 16 × 16" and axes[4].get_title() == "level 4, 2 × 2"
    assert np.array_equal(shown[0, 0], np.asarray(dataset[2]["image"]))


def test_levels_without_attention_have_no_map_of_it(isic):
    _, dataset = isic
    processor = EFPImageProcessor(size={"height": 32, "width": 32})
    figure = levels_figure(dataset[0]["image"], tiny_model(use_spatial_attention=False), processor)
    assert sum(bool(axes.images) for axes in figure.axes) == 3 + 2 * 4


# The script


@pytest.fixture
def draw_figures(monkeypatch, tmp_path, tiny_checkpoint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("efp_hf.inference.checkpoint.SHIPPED", tiny_checkpoint.parent)
    monkeypatch.setattr("efp_hf.inference.checkpoint.LESION_CHECKPOINTS", ("tiny",))
    monkeypatch.setattr("efp_hf.inference.checkpoint.DEFAULT_CHECKPOINT", "tiny")

    def run(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--no-texts", *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


@pytest.mark.slow
def test_rerun_gives_the_same_bytes(results, isic, tiny_checkpoint, draw_figures, tmp_path):
    root, dataset = isic
    write_run(results, Run("scratch", "efp"), [50 + k for k in range(len(dataset))], image_ids=dataset["image_id"][:])
    for region in ("all", "border"):
        write_bins(results, tiny_checkpoint, two_full_bins(lesion=7), region)
    save_system(
        model_folders("scratch", tmp_path / "runs" / "compare")["efp"], Run("scratch", "efp"), model=tiny_model()
    )
    written = []
    for _ in range(2):
        draw_figures("--data", root)
        paths = [*(tmp_path / "docs" / "figures").iterdir(), *(tmp_path / "figures").iterdir()]
        written.append({str(path.relative_to(tmp_path)): path.read_bytes() for path in paths})
    assert sorted(written[0]) == [
        "docs/figures/accuracy.svg",
        "docs/figures/jaccards.svg",
        "docs/figures/reliability.svg",
        "figures/levels.png",
        "figures/masks_scratch.png",
    ]
    assert written[0] == written[1]
    assert not any(b"<dc:date>" in content for content in written[0].values())


def test_script_names_what_it_cannot_draw_and_draws_the_rest(results, isic, tiny_checkpoint, draw_figures, capsys):
    root, dataset = isic
    write_run(results, Run("scratch", "efp"), [50 + k for k in range(len(dataset))], image_ids=dataset["image_id"][:])
    save_system(results.parent / "models" / "scratch-efp-seed0" / "model", Run("scratch", "efp"), model=tiny_model())
    draw_figures("--data", root, "--runs", "models", "--output", "pictures", "--image", "ISIC_1")
    lines = capsys.readouterr().out.splitlines()
    for system, title in (("unet", "U-Net"), ("unet_attention", "U-Net + attention"), ("maskformer", "MaskFormer")):
        assert f"pictures/masks_scratch.png: without {title}, no model in models/scratch-{system}-seed0/model" in lines
    assert not any("without EFP," in line for line in lines if "scratch" in line)
    assert any(line.startswith("docs/figures/reliability.svg: not drawn. results/reliability.csv") for line in lines)
    assert any(line.startswith("pictures/masks_pretrained.png: not drawn. `folders` must") for line in lines)
    assert any(line.startswith("pictures/levels.png: not drawn. ISIC_1: not among") for line in lines)
    assert "pictures/masks_scratch.png" in lines and "docs/figures/accuracy.svg" in lines
    assert [path.name for path in (results.parent / "pictures").iterdir()] == ["masks_scratch.png"]


def test_missing_data_is_named(results, draw_figures):
    with pytest.raises(SystemExit, match="nowhere: no such folder"):
        draw_figures("--data", "nowhere")


def test_pictures_with_images_are_ignored_by_git_and_the_others_are_not():
    lines = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "/figures/" in lines and "figures/" not in lines


def test_no_half_written_figure_stays(results, tmp_path):
    figure = accuracy_figure(results)
    save_figure(figure, tmp_path / "new" / "accuracy.png")
    with pytest.raises(ValueError, match="Format 'bad' is not supported"):
        save_figure(figure, tmp_path / "new" / "accuracy.bad")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["accuracy.png"]
