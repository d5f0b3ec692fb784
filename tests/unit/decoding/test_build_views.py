"""What views take from a store, and what is remarked of it, without a decode."""

from types import SimpleNamespace

import numpy as np

from fairseq_seqkd.corpus.nbest import Hypothesis
from fairseq_seqkd.corpus.nbest_store import Block
from fairseq_seqkd.decoding.build_views import ViewChoices, ViewFilter
from fairseq_seqkd.selection import choose


def hypothesis(*tokens, hit_limit=False):
    return Hypothesis(np.array(tokens, np.uint16), -1.0, -1.0, hit_limit)


class Store:
    """Blocks of one sentence each."""

    def __init__(self, nbests):
        self.nbests, self.passes = nbests, 0

    def __len__(self):
        return len(self.nbests)

    def blocks(self):
        self.passes += 1
        for i, nbest in enumerate(self.nbests):
            yield i, Block.from_lists([nbest], np.dtype(np.uint16), with_similarity=False)


NBESTS = [
    [hypothesis(5)],
    [hypothesis(), hypothesis(5)],
    [],
    [hypothesis(5), hypothesis()],
    [hypothesis(6, hit_limit=True)],
]


def last(block):
    return block.counts.astype(np.int64) - 1


def test_all_views_are_chosen_in_one_pass():
    store = Store(NBESTS)
    choices = ViewChoices(store, {"seq_kd": choose.mode, "seq_inter": last})
    assert store.passes == 1
    assert choices.ranks["seq_kd"].tolist() == [0, 0, -1, 0, 0]
    assert choices.ranks["seq_inter"].tolist() == [0, 1, -1, 1, 0]
    assert {ranks.dtype.itemsize for ranks in choices.ranks.values()} == {4}  # bytes per sentence


def test_empty_hypotheses_are_counted_and_listed():
    choices = ViewChoices(Store(NBESTS), {"seq_kd": choose.mode, "seq_inter": last})
    listed = {reason: ids.tolist() for reason, ids in choices.remarks.listed.items()}
    of_inter = {"seq_inter_empty": [3], "seq_inter_hit_limit": [4]}
    assert listed == {"source_too_long": [2], "empty": [1], "hit_limit": [4], **of_inter}
    assert choices.remarks.counts == dict.fromkeys(listed, 1)
    of_gold_alone = ViewChoices(Store(NBESTS), {"seq_kd": choose.mode})
    assert set(of_gold_alone.remarks.listed) == {"source_too_long", "empty", "hit_limit"}


def test_filtered_sentences_are_left_out_and_listed_but_still_remarked():
    sources = [[4, 2], [4, 5, 2], [4, 2], [2], [4, 2]]  # 2 is EOS
    dictionary = SimpleNamespace(
        symbols=["<s>", "<pad>", "</s>", "<unk>", "a", "b", "c"], eos=lambda: 2, unk=lambda: 3
    )
    gold = SimpleNamespace(read=lambda _: sources, languages=SimpleNamespace(source="de"))
    dataset = SimpleNamespace(src_dict=dictionary, tgt_dict=dictionary)
    view_filter = ViewFilter({"empty": True, "length_ratio": 1.5}, gold, dataset)
    choices = ViewChoices(Store(NBESTS), {"seq_kd": choose.mode}, view_filter)
    failures = {name: ids.tolist() for name, ids in choices.failures["seq_kd"].listed.items()}
    assert failures == {"empty": [1], "length_ratio": [1, 3]}
    assert choices.ranks["seq_kd"].tolist() == [0, -1, -1, -1, 0]
    assert choices.remarks.listed["empty"].tolist() == [1]
