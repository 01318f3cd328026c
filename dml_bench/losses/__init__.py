"""Losses. Adding one is adding a function to a module here: `dml-bench list losses`, the docs and
the conformance test find it.

A registered function takes the number of trained classes and the embedding's dimension, and returns
a module `(embeddings (batch, dim), labels (batch) in 0 .. num_classes-1, mined indices or None) ->
scalar`. It raises ValueError for an option out of its range. Facts:

- `takes_miner`: it looks at pairs or triplets and can be told at which, positives and negatives
  both;
- `adds_tuples`: each of its terms is of one pair or triplet, so that the images of a pair can weigh
  it (`mixing.pair_weight`); the terms of others are of an anchor with all its pairs;
- `trains_proxies`: it has parameters of its own;
- `classifies`: its module has `logits(embeddings) -> (batch, num_classes)`, higher is likelier,
  without any margin; where the loss is a softmax over classes, theirs is the probability that it
  assigns;
- `one_number`: it is no mean over images (pairs or triplets, each with an image as its anchor), so
  none of them can count more than others;
- `interpolates`: mixtures of a positive and a negative can have a part in it (`losses.metrix`);
- `label_sets`: it is defined for images of several labels, and then takes (batch, num_classes) bool
  in place of (batch) labels; losses that take a miner are too, by the pairs that share a label;
- `unit_vectors`: it wants embeddings of unit length;
- `logit_range`: of its options, the largest difference of two logits, where they are bounded.

A batch in which a loss finds nothing to compare gives 0 with a gradient of 0.
"""

from dml_bench.losses import pair_losses, proxy_losses, ranking_losses

__all__ = ["pair_losses", "proxy_losses", "ranking_losses"]
