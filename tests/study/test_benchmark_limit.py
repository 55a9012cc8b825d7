"""What the machine allows."""

import torch
from conftest import tiny_model

from efp_hf.study.benchmark.limit import bytes_moved, limit_columns, limit_rows, machine_peaks


def test_bytes_are_those_that_each_operation_reads_and_writes():
    class TwoSteps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 5, 1)

        def forward(self, pixel_values):
            return self.convolution(pixel_values).flatten(2).relu()  # flattening moves nothing

    image, weights, feature_map = 2 * 3 * 8 * 8, 5 * 3 + 5, 2 * 5 * 8 * 8
    expected = 4 * (image + weights + feature_map + feature_map + feature_map)
    assert bytes_moved(TwoSteps(), batch_size=2, image_size=8) == expected


def test_limit_is_the_longer_of_arithmetic_and_bytes():
    peaks = {"copy_gb_s": 10.0, "conv3x3_gflops": 100.0, "conv1x1_gflops": 50.0}
    columns = limit_columns(10**9, 10**8, peaks, median_ms=60)
    assert (columns["compute_ms"], columns["memory_ms"], columns["times_limit"]) == (20, 10, 3)
    columns = limit_columns(10**9, 4 * 10**8, peaks, median_ms=60)
    assert (columns["memory_ms"], columns["times_limit"], columns["times_compute"]) == (40, 1.5, 3)


def test_limit_rows_count_each_image_of_a_batch():
    peaks = machine_peaks(rounds=1, channels=8, side=8, copy_mb=1)
    assert set(peaks) == {"copy_gb_s", "conv3x3_gflops", "conv1x1_gflops"} and min(peaks.values()) > 0
    seconds = {(1, 32, "torch"): [0.1], (4, 32, "torch"): [0.3]}
    one, four = limit_rows(seconds, peaks, tiny_model())
    assert four["multiply_adds"] == 4 * one["multiply_adds"] > 0
    assert one["megabytes"] < four["megabytes"] < 4 * one["megabytes"]  # the weights are read once
    assert list(one) == list(four)
