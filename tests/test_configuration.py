import pytest
from transformers import AutoConfig, ResNetConfig, TimmBackboneConfig

from efp_hf import EFPConfig


def test_default_has_the_labels_background_and_lesion():
    config = EFPConfig()
    assert config.id2label == {0: "background", 1: "lesion"}
    assert config.label2id == {"background": 0, "lesion": 1}
    assert config.num_labels == 2


def test_own_names_for_two_labels_are_kept():
    assert EFPConfig(id2label={0: "skin", 1: "mole"}).id2label == {0: "skin", 1: "mole"}


@pytest.mark.parametrize(
    "backbone_config",
    [
        None,
        TimmBackboneConfig(backbone="tf_efficientnet_lite0", out_indices=(1, 2, 3, 4), use_pretrained_backbone=False),
        ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
    ],
    ids=["paper", "timm", "transformers"],
)
def test_saved_config_loads_as_it_was(tmp_path, backbone_config):
    config = EFPConfig(backbone_config=backbone_config, pyramid_size=48, dice_weight=0.3, use_cross_scale=False)
    config.save_pretrained(tmp_path)
    for loaded in (EFPConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is EFPConfig
        assert loaded.to_diff_dict() == config.to_diff_dict()
        assert type(loaded.backbone_config) is type(backbone_config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt_size": 4, "num_labels": 3}, "`prompt_size` must be 0 where `num_labels` is not 2, got 4 with 3"),
        ({"hidden_sizes": (8, 16, 32)}, r"`hidden_sizes` must have 4 positive numbers.*got \(8, 16, 32\)"),
        ({"hidden_sizes": (8, 16, 32, 0)}, "`hidden_sizes` must have 4 positive"),
        ({"depths": (1, 1, 1, 1, 1)}, "`depths` must have 4 positive"),
        ({"pyramid_size": 0}, "`pyramid_size` must be positive, got 0"),
        ({"head_size": 0}, "`head_size` must be positive, got 0"),
        ({"cross_scale_kernel_size": 4}, "`cross_scale_kernel_size` must be odd, got 4"),
        ({"attention_kernel_size": 0}, "`attention_kernel_size` must be odd, got 0"),
        ({"num_labels": 1}, "`num_labels` must be at least 2, got 1"),
        ({"dice_weight": -1.0}, "must not be negative.*got -1.0 and 1.0"),
        ({"dice_weight": 0, "bce_weight": 0}, "not both be zero"),
        ({"dice_smoothing": 0.0}, "`dice_smoothing` must be positive, got 0.0"),
        ({"backbone_config": {"out_indices": [1, 2, 3, 4]}}, r"`backbone_config` must have a `model_type`, got"),
        (
            {"backbone_config": ResNetConfig(out_features=["stage1", "stage2", "stage3"])},
            "must give 4 feature maps, or 3 where it is a timm backbone, got",
        ),
    ],
)
def test_impossible_values_are_refused_by_name(fields, words):
    with pytest.raises(ValueError, match=words):
        EFPConfig(**fields)


def test_wrong_type_is_refused():
    with pytest.raises(Exception, match="pyramid_size"):
        EFPConfig(pyramid_size="64")


def test_configuration_of_another_architecture_is_refused(tmp_path):
    ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be of model_type 'efp', got 'resnet'"):
        EFPConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_impossible_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        EFPConfig(temperature=temperature)


@pytest.mark.parametrize("option", [{"global_context_size": 64}, {"zero_init_scores": True}])
def test_options_of_an_earlier_version_are_refused_where_they_were_on(option):
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` must be off: it was an option of 0.1.0"):
        EFPConfig(**option)
    assert name not in EFPConfig(**{name: type(option[name])(0)}).to_dict()
