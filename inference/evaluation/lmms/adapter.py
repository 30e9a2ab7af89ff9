"""The simple and the chat adapter, without lmms-eval's base class: `models` puts it below them when lmms-eval asks for them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from inference.evaluation.harness.model import Answer, HarnessModel, Make
from inference.evaluation.harness.question import Decoding, Question
from inference.evaluation.harness.settings import HarnessSettings
from inference.evaluation.lmms.requests import Advance, Decodings, clips_of, play_rounds

_CONVERSATIONS = 32
"""That are played together; their pictures lie in memory."""


class Adapter(ABC):
    """A checkpoint behind lmms-eval's interface `lmms`; the model arguments are the fields of `HarnessSettings`.

    Args:
        batch_size: of the command line; the model argument `batch` goes before it.
        max_batch_size: no use is made of it.
        arguments: model arguments.

    Raises:
        InputError: an argument is wrong, or the checkpoint cannot be loaded.
    """

    # Of lmms-eval's base class.
    cache_hook: Any
    task_dict: dict[str, Any]
    rank: int

    def __init__(self, *, batch_size: int | str = 1, max_batch_size: int | str | None = None, **arguments: Any) -> None:
        super().__init__()
        arguments.setdefault("batch", batch_size)
        self._join_others(arguments)
        self.settings = HarnessSettings.read(arguments)
        self._model: HarnessModel | None = HarnessModel(self.settings)

    def _join_others(self, arguments: dict[str, Any]) -> None:
        """With `accelerate launch` or `torchrun` each process takes its part of the documents, and its own GPU."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=arguments.get("device") == "cpu")
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        arguments["device"] = str(self.device)

    @property
    def model(self) -> HarnessModel:
        """The loaded checkpoint; loaded again where `clean` gave it back."""
        if self._model is None:
            self._model = HarnessModel(self.settings)
        return self._model

    def clean(self) -> None:
        """Give the model's memory back: lmms-eval may start a judge now."""
        self._model = None
        super().clean()  # type: ignore[misc]  # the base class's

    @abstractmethod
    def _question(self, arguments: Sequence[Any], decoding: Decoding) -> Question:
        """The question of a request's arguments."""

    @abstractmethod
    def _rounds(self, arguments: Sequence[Any], decoding: Decoding) -> Advance:
        """How a conversation goes on."""

    @abstractmethod
    def _generation(self, arguments: Sequence[Any]) -> dict[str, Any]:
        """The generation arguments among a request's."""

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Answers in the order of the requests, as `GenerationResult` with counts of tokens.

        Requests that show the same pictures or video are answered from one encoded stream, wherever they stand.
        """
        from lmms_eval.api.instance import GenerationResult, TokenCounts

        decodings = Decodings(self.settings)
        makers = [self._maker(request.args, decodings) for request in requests]
        with self._progress(len(requests)) as progress:

            def done(number: int, answer: Answer) -> None:
                arguments = requests[number].args
                self.cache_hook.add_partial("generate_until", (arguments[0], self._generation(arguments)), answer.text)
                progress.update(1)

            answers = self.model.answer(makers, done)
        counts = [TokenCounts(input_tokens=a.input_tokens, output_tokens=a.output_tokens) for a in answers]
        return [GenerationResult(a.text, count) for a, count in zip(answers, counts, strict=True)]

    def _maker(self, arguments: Sequence[Any], decodings: Decodings) -> Make:
        decoding = decodings.of(self._generation(arguments), *arguments[-3:])
        return lambda: self._question(arguments, decoding)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """For each request the answers of its rounds, as its task returns them when it says that it is over."""
        decodings = Decodings(self.settings)
        found: list[list[str]] = []
        with self._progress(len(requests)) as progress:
            for begin in range(0, len(requests), _CONVERSATIONS):
                part = [request.args for request in requests[begin : begin + _CONVERSATIONS]]
                rounds = [self._rounds(a, decodings.of(self._generation(a), *a[-3:])) for a in part]
                played = play_rounds(rounds, self._texts)
                for arguments, answers in zip(part, played, strict=True):
                    key = (arguments[0], self._generation(arguments))
                    self.cache_hook.add_partial("generate_until_multi_round", key, answers)
                    progress.update(1)
                found += played
        return found

    def _texts(self, questions: Sequence[Question]) -> list[str]:
        return [answer.text for answer in self.model.answer([_keep(question) for question in questions])]

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """(sum of the log-probabilities of the continuation's tokens, whether greedy decoding says it) of each request.

        Arguments of a request: (context, continuation or a function of the document, doc_to_visual, document, task, split), or
        the first two alone. Of a task with choices lmms-eval takes the choice with the *smallest* number, as its own models
        return losses there: for such requests, which come numbered, the sum is negated.
        """
        from inference.evaluation.lmms.models import likelihood

        makers, continuations = [], []
        choices: dict[tuple[Any, ...], int] = defaultdict(int)
        for request in requests:
            context, continuation, *rest = request.args
            if callable(continuation):
                continuation = continuation(self._document(rest[1:]))
            makers.append(self._context(context, rest))
            continuations.append(str(continuation))
            choices[_owner(request)] = max(choices[_owner(request)], request.idx)
        found = []
        for request, (total, greedy) in zip(requests, self.model.likelihoods(makers, continuations), strict=True):
            result = likelihood(-total if choices[_owner(request)] else total, greedy)
            self.cache_hook.add_partial("loglikelihood", request.args[:2], tuple(result))
            found.append(result)
        return found

    def _context(self, context: str, rest: Sequence[Any]) -> Make:
        if not rest:
            return lambda: Question.ask([], context, Decoding())
        doc_to_visual, *document = rest
        return lambda: Question.ask(clips_of(doc_to_visual(self._document(document))), context, Decoding())

    def _document(self, arguments: Sequence[Any]) -> Any:
        """The document of the last three of a request's arguments: its number, task and split."""
        number, task, split = arguments[-3:]
        return self.task_dict[task][split][number]

    def _progress(self, total: int) -> Any:
        from tqdm import tqdm

        return tqdm(total=total, disable=self.rank != 0, desc="Model Responding")


def _owner(request: Any) -> tuple[Any, ...]:
    return request.task_name, request.doc_id


def _keep(question: Question) -> Callable[[], Question]:
    return lambda: question
