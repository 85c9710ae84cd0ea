"""Networks: parameter counts against the papers, shapes at any grid."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("segmentation_models_pytorch", reason="the train extra is not installed")

from covseg.errors import ModelRefused, UsageError
from covseg.networks.table import build
from covseg.training.learner import Learner, network_arguments
from covseg.training.ranks import Rank
from covseg.training.recipe import load_recipe, shipped


def parameters(network):
    return sum(value.numel() for value in network.parameters())


def double(inputs, outputs):
    return 9 * inputs * outputs + outputs + 9 * outputs * outputs + outputs


def test_the_plain_unet_has_the_papers_31_million_parameters():
    widths = (64, 128, 256, 512, 1024)
    by_hand = sum(double(a, b) for a, b in zip((1, *widths), widths, strict=False))
    for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True):
        by_hand += 4 * deep * shallow + shallow + double(2 * shallow, shallow)
    network = build("plain-unet", {"masks": 2})
    assert parameters(network) == by_hand + 2 * 64 + 2 == 31_030_658


def test_the_attention_unet_has_the_34_9_million_parameters_of_its_2d_form():
    # 34,878,573 with an RGB input; grey spares 2 * 9 * 64
    assert parameters(build("attention-unet", {})) == 34_878_573 - 2 * 9 * 64


def test_a_gate_of_zeros_halves_the_skip():
    from covseg.networks.blocks import AttentionGate

    gate = AttentionGate(8).eval()
    for value in gate.parameters():
        torch.nn.init.zeros_(value)
    skip = torch.randn(1, 8, 4, 4)
    assert torch.allclose(gate(torch.randn(1, 8, 4, 4), skip), skip / 2)


@pytest.mark.parametrize("name", shipped())
def test_every_recipe_draws_its_masks_on_its_grid(name):
    recipe = load_recipe(name)
    kind, arguments = network_arguments(recipe)
    network = build(kind, arguments).eval()
    with torch.no_grad():
        masks, presence, features = network.forward_with_features(torch.zeros(2, recipe.input.planes, 64, 64))
    assert masks.shape == (2, len(recipe.data.targets), 64, 64)
    assert presence.shape == (2,)
    assert features.shape[0] == 2 and features.dim() == 2


def test_scse_and_transformers_are_options():
    plain = build("unet", {"encoder": "resnet18"})
    gated = build("unet", {"encoder": "resnet18", "attention": "scse"})
    former = build("segformer", {"encoder": "mit_b0"})
    assert parameters(gated) > parameters(plain)
    with torch.no_grad():
        assert former.eval().forward_with_features(torch.zeros(1, 1, 64, 64))[0].shape == (1, 1, 64, 64)


def test_a_timm_encoder_takes_gates_or_scse_in_its_decoder():
    networks = {
        attention: build("encoder-unet", {"encoder": "tf_efficientnet_lite0", "attention": attention}).eval()
        for attention in ("none", "gates", "scse")
    }
    counts = {attention: parameters(network) for attention, network in networks.items()}
    # a gate on a skip of width w: two 1x1 convolutions to w/2 and one to 1, each with its norm; scSE as its paper
    widths = (144, 80, 48)
    assert counts["gates"] - counts["none"] == sum(w * w + 3 * w + w // 2 + 3 for w in widths)
    assert counts["scse"] - counts["none"] == sum(2 * w * (w // 16) + w // 16 + w + w + 1 for w in widths)
    with torch.no_grad():
        for network in networks.values():
            assert network.forward_with_features(torch.zeros(2, 1, 64, 64))[0].shape == (2, 2, 64, 64)


def test_without_a_presence_term_presence_is_the_strongest_infection_pixel():
    heads = [
        [key for key in build(*network_arguments(load_recipe("fast", settings))).state_dict() if "presence" in key]
        for settings in ([], ["loss.presence=0"])
    ]
    assert heads[0] and not heads[1]
    network = build("encoder-unet", {"encoder": "tf_efficientnet_lite0", "presence": False}).eval()
    with torch.no_grad():
        masks, presence, _ = network.forward_with_features(torch.randn(2, 1, 64, 64))
    assert torch.equal(presence, masks[:, -1].amax(dim=(1, 2)))


def test_attention_where_there_is_none_to_be_had_is_said():
    with pytest.raises(UsageError, match="'gates' is for encoder-unet, lung-view, not plain-unet"):
        load_recipe("unet-small", ["network.kind=plain-unet", "network.attention=gates"])


def test_a_network_that_cannot_be_built_is_said():
    with pytest.raises(ModelRefused, match=r"cannot be built from .*tf_efficientnet_light0"):
        build("encoder-unet", {"encoder": "tf_efficientnet_light0"})
    with pytest.raises(ModelRefused, match="cannot be built"):
        build("encoder-unet", {"encoder": "tf_efficientnet_lite0", "widths": (8, 16)})


def test_a_cascade_empties_infection_outside_the_lung():
    small = {"widths": (4, 8)}
    network = build(
        "cascade",
        {
            "lung": {"network": "plain-unet", "network_args": small},
            "infection": {"network": "plain-unet", "network_args": small | {"channels": 2}, "size": 32},
            "sees_lung": True,
            "constrained": True,
        },
    ).eval()
    with torch.no_grad():
        masks, _, _ = network.forward_with_features(torch.randn(2, 1, 64, 64))
    assert masks.shape == (2, 2, 64, 64)
    assert (masks[:, 1][masks[:, 0] <= 0] < -10).all()


def test_an_ensemble_of_one_with_a_mirror_is_symmetric():
    one = {"network": "plain-unet", "network_args": {"widths": (4, 8), "masks": 2}}
    network = build("ensemble", {"members": [one], "mirror": True}).eval()
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        masks, turned = network.forward_with_features(images)[0], network.forward_with_features(images.flip(3))[0]
    assert torch.allclose(masks, turned.flip(3), atol=1e-5)


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(ModelRefused, match=r"unknown network 'plain-unett', did you mean 'plain-unet'\?"):
        build("plain-unett", {})


def test_an_unknown_argument_is_a_refusal():
    with pytest.raises(ModelRefused, match="cannot be built"):
        build("plain-unet", {"depth": 3})


def test_batch_norms_of_an_encoder_from_random_weights_follow_a_short_training():
    settings = ["network.weights=none", "network.encoder=efficientnet-b0", "input.size=64"]
    network = Learner(load_recipe("lung-unet-effb3", settings), Rank(), 1).plain
    found = {part.momentum for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)}
    assert min(found) == 0.1


def test_a_grid_that_a_network_cannot_take_is_refused_by_its_setting():
    recipe = load_recipe("unet-plain", ["network.widths=[4, 4, 4, 4, 4, 4, 4]", "input.size=96"])
    with pytest.raises(UsageError, match=r"plain-unet at input.size 96: .*; wanted mask logits \(1, 1, 96"):
        Learner(recipe, Rank(), 1)


def test_the_weights_of_a_run_of_the_same_network_go_on_as_a_whole(tmp_path):
    from safetensors.torch import save_file

    from covseg.training.weights import fill

    settings = ["network.kind=encoder-unet", "input.channels=1", "input.view=0", "network.encoder=lcnet_050"]
    recipe, both = load_recipe("fast", settings), [*settings, "data.targets=['lung', 'infection']"]
    first, second, wider = (build(*network_arguments(one)) for one in (recipe, recipe, load_recipe("fast", both)))
    save_file(first.state_dict(), tmp_path / "run.safetensors")
    source = fill(second, load_recipe("fast", [*settings, f"network.weights={tmp_path}/run.safetensors"]))
    assert source.startswith("run.safetensors, sha256")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    # a network that draws two masks takes the encoder alone
    fill(wider, load_recipe("fast", [*both, f"network.weights={tmp_path}/run.safetensors"]))
    assert torch.equal(first.encoder.state_dict()["conv_stem.weight"], wider.encoder.state_dict()["conv_stem.weight"])
    assert wider.head.weight.shape[0] == 2 * first.head.weight.shape[0]
