import torch

from clipfarm_assets.fusion.learned.gated import GatedFusion


def test_parameters_are_named_as_in_stored_models():
    shapes = {key: tuple(value.shape) for key, value in GatedFusion(3, 5, 7).named_parameters()}
    assert shapes == {
        "gate.0.weight": (7, 5),
        "gate.0.bias": (7,),
        "gate.2.weight": (3, 7),
        "gate.2.bias": (3,),
    }


def test_extreme_scores_are_finite():
    fusion = GatedFusion(3, 1, 2)
    with torch.no_grad():
        fusion.gate[2].bias.copy_(torch.tensor([3e38, -3e38, 0.0]))
    vectors = [torch.ones(4, 2)] * 3
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    fused, weights = fusion(vectors, present, torch.zeros(4, 1))
    assert weights.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert fused.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
