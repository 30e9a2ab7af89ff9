"""Sampling in fixed buffers equals sampling in new ones, whatever sessions come, go and change places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.sampling import GraphSampler, Sampler, SamplingConfig, choose_rows
from model.errors import InputError
from tests.inference.sampling.test_rows import VOCABULARY, configs

SESSIONS = 5


@given(st.lists(configs, min_size=SESSIONS, max_size=SESSIONS), st.data())
@settings(max_examples=40, deadline=None)
def test_equal_to_choose_rows(settings_of: list[SamplingConfig], data: st.DataObject) -> None:
    sessions: list[Sampler | None] = [Sampler(config, banned=[3, 99], silence_id=7) for config in settings_of]
    sessions.append(None)
    buffers = GraphSampler(4, VOCABULARY, "cpu")
    addresses = [t.data_ptr() for t in (buffers.tokens, buffers.fed)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(1, 6))):
        rows = data.draw(st.permutations(sessions).map(lambda order: order[:4]).flatmap(lambda r: st.sampled_from([r, r[:2]])))
        logits = 3 * torch.randn(len(rows), VOCABULARY, generator=generator)
        path = buffers.load(rows)
        found = buffers.sample(logits, path).clone()
        assert found.tolist() == choose_rows(logits, rows).tolist()
        assert buffers.fed[: len(rows)].tolist() == found.clamp(min=0).tolist()
        # Ahead of reading: as if the tokens had been accepted, without a trace in the buffers.
        more = 3 * torch.randn(len(rows), VOCABULARY, generator=generator)
        ahead = buffers.sample(more, buffers.load(rows, extra=[1] * len(rows)), following=found).tolist()
        for sampler, token in zip(rows, found.tolist(), strict=True):
            if sampler is not None:
                sampler.accept(token)
        assert ahead == choose_rows(more, rows).tolist()
    assert [t.data_ptr() for t in (buffers.tokens, buffers.fed)] == addresses


def test_rows_without_a_valid_score_feed_a_token_of_the_vocabulary() -> None:
    buffers = GraphSampler(2, 3, "cpu")
    rows = [Sampler(SamplingConfig(do_sample=True)), Sampler(SamplingConfig(), banned=range(3))]
    found = buffers.sample(torch.tensor([[float("nan"), 0, 0], [1.0, 2, 3]]), buffers.load(rows))
    assert found.tolist() == [-1, -1] and buffers.fed.tolist() == [0, 0]


def test_more_sessions_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match="3 sessions, its buffers 2 rows"):
        GraphSampler(2, 8, "cpu").load([None, None, None])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(repetition_penalty=1.2, silence_threshold=0.2),
        SamplingConfig(do_sample=True, top_k=50, seed=1),
        SamplingConfig(do_sample=True, top_k=1000, top_p=0.9, temperature=0.7),
        SamplingConfig(do_sample=True, top_p=0.9),
        SamplingConfig(do_sample=True),
    ],
)
def test_replayed_graphs_choose_what_a_cpu_chooses(config: SamplingConfig) -> None:
    size = 128_256
    on_device, on_host = ([Sampler(config, banned=[5], silence_id=9) for _ in range(4)] for _ in range(2))
    buffers = GraphSampler(8, size, "cuda")
    logits = torch.randn(4, size, device="cuda")
    path = buffers.load(on_device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        buffers.sample(logits, path)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        buffers.sample(logits, path)
    agreed = 0
    for step in range(16):
        logits.copy_(3 * torch.randn(4, size, generator=torch.Generator().manual_seed(step)))
        assert buffers.load(on_device) == path
        allocated = torch.cuda.memory_stats()["allocation.all.allocated"]
        graph.replay()
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocated
        found, expected = buffers.tokens[:4].tolist(), choose_rows(logits.cpu(), on_host).tolist()
        agreed += sum(a == b for a, b in zip(found, expected, strict=True))
        for samplers in (on_device, on_host):
            for sampler, token in zip(samplers, expected, strict=True):
                sampler.accept(token)
    assert agreed >= 62  # exp may differ in its last place, which moves one draw in very many
