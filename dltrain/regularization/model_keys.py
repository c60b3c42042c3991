"""Regularization words that set a key of the model or of the loss; they do nothing in a step."""

from __future__ import annotations

from torch import nn

from dltrain.declare import declares
from dltrain.ranges import Fraction


class ByKey:
    """A rule that acts by a key of the model or of the loss, and has no place of its own in the step."""


@declares(needs={"dropout"})
def dropout(model: nn.Module, p: Fraction = 0.2) -> ByKey:
    """Dropout: drop hidden units at random while training.

        h ← m·h/(1 − p)
        m = 0 with probability p, else 1
        evaluation: h ← h

    Symbols: L1 writes p for the probability to keep
    Use: wide fully connected layers; sets model.dropout.
    Defaults: 0.2; L2 gives 0.1 to 0.5 as the usual range.
    Paper: Srivastava et al. 2014 (JMLR 15)
    Lecture: L0 L1 L2 L3

    Args:
        p: probability to drop a unit
    """
    return ByKey()


@declares(needs={"classes", "label smoothing"})
def label_smoothing(model: nn.Module, smoothing: Fraction = 0.1) -> ByKey:
    """Label smoothing: mix the target with the uniform distribution over the classes.

        y ← (1 − ε)·y + ε/K

    train/loss, val/loss and test/loss are the cross-entropy without smoothing.

    Symbols: ε = smoothing; K classes
    Use: classification with overconfident networks; sets loss.label_smoothing.
    Defaults: the paper's 0.1.
    Paper: Szegedy et al. 2016, arXiv:1512.00567

    Args:
        smoothing: weight of the uniform distribution
    """
    return ByKey()


@declares(needs={"skips"})
def stochastic_depth(model: nn.Module, p: Fraction = 0.1) -> ByKey:
    """Stochastic depth: drop residual blocks at random while training.

        block_l(x) = x + m·f(x)/(1 − p_l)
        m = 0 with probability p_l = p·l/L, else 1

    Symbols: l = 1, …, L the number of the residual block
    Use: deep residual networks and transformers; sets model.stochastic_depth.
    Defaults: 0.1; the paper uses up to 0.5 for 110 layers.
    Paper: Huang et al. 2016, arXiv:1603.09382

    Args:
        p: probability to drop the last block
    """
    return ByKey()
