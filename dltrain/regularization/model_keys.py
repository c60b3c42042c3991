"""Regularization that lives in the model or in the loss: each word sets a key there, and has nothing to do in a step."""

from __future__ import annotations

from torch import nn

from dltrain.ranges import Fraction


def dropout(model: nn.Module, p: Fraction = 0.2) -> None:
    """Dropout: hidden units are left out by chance while training.

        h ← m·h/(1 − p), m = 0 with probability p, else 1
        nothing when evaluating

    Symbols: p = the probability to drop (L1's p is the one to keep)
    Use: wide fully connected layers; sets model.dropout.
    Defaults: 0.2; L2 gives 0.1 to 0.5 as the usual range.
    Paper: Srivastava et al. 2014 (JMLR 15)
    Lecture: L0 L1 L2 L3

    Args:
        p: probability to drop a unit
    """


def label_smoothing(model: nn.Module, smoothing: Fraction = 0.1) -> None:
    """Label smoothing: the target keeps a little for every class.

        y ← (1 − ε)·y + ε/K

    Symbols: ε = smoothing; K classes
    Use: classification with overconfident nets; sets loss.label_smoothing. train/loss, val/loss and the test
        loss stay the plain cross-entropy.
    Defaults: the paper's 0.1.
    Paper: Szegedy et al. 2016, arXiv:1512.00567

    Args:
        smoothing: share of the target that is spread over all classes
    """


def stochastic_depth(model: nn.Module, p: Fraction = 0.1) -> None:
    """Stochastic depth: residual blocks are left out by chance while training.

        block(x) = x + m·f(x)/(1 − p_l), m = 0 with probability p_l, else 1
        p_l grows linearly with depth up to p

    Symbols: p_l the probability of block l of L: p·l/L
    Use: deep residual nets and transformers; sets model.stochastic_depth.
    Defaults: 0.1; the paper goes up to 0.5 for 110 layers.
    Paper: Huang et al. 2016, arXiv:1603.09382

    Args:
        p: probability to leave out the last block
    """
