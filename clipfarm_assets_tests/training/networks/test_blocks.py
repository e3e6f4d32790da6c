import pytest
import torch

from clipfarm_assets.training.networks.blocks import CategoryEmbeddings, embedding_dim, mlp


@pytest.mark.parametrize(
    ("cardinality", "dim"),
    [(1, 2), (2, 2), (6, 2), (7, 3), (12, 3), (13, 4), (100, 10), (992, 31), (5000, 32)],
)
def test_embedding_dim(cardinality, dim):
    assert embedding_dim(cardinality) == dim


def test_code_zero_adds_nothing_until_it_is_learned():
    torch.manual_seed(0)
    embeddings = CategoryEmbeddings((5, 13))
    assert embeddings.dim == 2 + 4
    assert torch.equal(embeddings(torch.zeros(3, 2, dtype=torch.long)), torch.zeros(3, 6))
    embeddings(torch.zeros(3, 2, dtype=torch.long)).sum().backward()
    assert all(bool((table.weight.grad[0] == 3).all()) for table in embeddings.tables)


def test_columns_are_side_by_side():
    embeddings = CategoryEmbeddings((5, 13))
    both = embeddings(torch.tensor([[4, 12]]))[0]
    assert torch.equal(both[:2], embeddings.tables[0].weight[4])
    assert torch.equal(both[2:], embeddings.tables[1].weight[12])


def test_no_categories():
    embeddings = CategoryEmbeddings(())
    assert embeddings.dim == 0
    assert embeddings(torch.zeros(3, 0, dtype=torch.long)).shape == (3, 0)


def test_a_fresh_mlp_starts_at_the_mean():
    torch.manual_seed(0)
    output = mlp(6, (16, 8), 0.5, mean=9.5).eval()(torch.randn(50, 6))
    assert output.shape == (50, 1)
    assert (output - 9.5).abs().max() < 1
    assert [type(layer).__name__ for layer in mlp(6, (16, 8), 0.5)] == [
        *("Linear", "GELU", "Dropout") * 2,
        "Linear",
    ]
