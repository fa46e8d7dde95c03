"""A fit counts once it has succeeded: until then it works on a draft, so that one that fails leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any


def adopt(estimator: Any, train: Callable[[Any], object]) -> Any:
    """Train a draft of an estimator; give the estimator its attributes, all at once, where that succeeds.

    Parameters
    ----------
    estimator : SublinearEstimator
        Stays as it is, to the last attribute, where ``train`` raises; Ctrl-C is no exception.
    train : callable
        Called with the draft: an object of the same class with the same attributes, of which it may replace any.
        What it changes within one of them is changed for both (:func:`untouched`).

    Returns
    -------
    object
        The estimator.
    """
    draft = object.__new__(type(estimator))
    draft.__dict__ = dict(vars(estimator))
    train(draft)
    estimator.__dict__ = vars(draft)
    return estimator


@contextmanager
def untouched(estimator: Any) -> Iterator[None]:
    """Keep a copy of the session and its network, which training changes in place, and bring it back after a failure.

    Parameters
    ----------
    estimator : SublinearEstimator
        With ``_session``; for as long as the body runs, memory holds both.

    Yields
    ------
    None
        To the body.
    """
    kept = deepcopy(estimator._session)
    try:
        yield
    except BaseException:
        estimator._session, estimator.network_ = kept, kept.network
        raise
