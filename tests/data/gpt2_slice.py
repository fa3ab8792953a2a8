"""The part of GPT-2's vocabulary that document 000's sentence needs, with its true ids, in a vocabulary of true size.

All 256 bytes and every token inside a word of "Harry Potter was a wizard." have the ids that OpenAI gave them; every
other id is taken by two bytes that no text has side by side, so that nothing else can be merged.
"""

from ganeum.data.bpe import BPE, BYTES

MERGED = {
    " a": 257, "er": 263, " w": 266, "ar": 283, "as": 292, "ot": 313, " P": 350, "ter": 353, " was": 373, "ard": 446,
    "iz": 528, "ry": 563, "te": 660, "tt": 926, "ott": 1252, " wa": 2082, "arr": 3258, "rd": 4372, "za": 4496,
    "arry": 6532, " Pot": 6902, " Po": 7695, "izard": 8669, "was": 9776, "wa": 10247, "otte": 11404, "Har": 13587,
    " Potter": 14179, "Harry": 18308, " wizard": 18731, "Po": 18833, "rr": 21062, "Ha": 23303, "iza": 23638,
    "Pot": 25396, "wi": 37686, "zar": 41046, " wi": 45967,
}  # fmt: skip


def gpt2_slice() -> BPE:
    ranks = {bytes([byte]): id for id, byte in enumerate(BYTES)} | {t.encode(): id for t, id in MERGED.items()}
    free = (bytes([a, b]) for a in range(0x80, 0x100) for b in range(0x100))  # 32,768 pairs
    more = (bytes([a, b]) for a in range(0x00, 0x20) for b in range(0x100))
    pairs = (pair for some in (free, more, (bytes([a, b, 0xFF]) for a in range(0x80, 0x100) for b in range(0x100)))
             for pair in some)  # fmt: skip
    for id in sorted(set(range(50_256)) - set(ranks.values())):
        ranks[next(pairs)] = id
    return BPE.from_ranks(ranks, "gpt2")
