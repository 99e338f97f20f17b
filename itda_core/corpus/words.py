"""Which words say what a text is about, and which only hold its sentences together."""

FEWEST_LETTERS = 3
"""Of a word that says something by itself"""
_ENGLISH = """
the this that these those each every either neither some any all both few many much more most
less least several such same other another own one ones none nobody nothing someone anyone
everyone something anything everything you your yours yourself she her hers herself him his
himself its itself our ours ourselves they them their theirs themselves myself who whom whose
which what whatever whichever whoever about above across after against along amid among around
before behind below beneath beside besides between beyond but by concerning despite down during
except for from inside into like near off onto out outside over past per since than through
throughout till toward towards under underneath until unto upon via with within without and
because nor not either though although unless whereas whether while yet lest also too are was
were been being has had have having does did doing done can could may might must shall should
will would ought need dare let get got again almost already always even ever far hence here how
however indeed just never now often once only perhaps quite rather really so still then thence
there therefore thereby thereof therein thus very well when whenever where whereby wherein
wherever why
"""
FUNCTION_WORDS = frozenset(_ENGLISH.split())
"""Articles, pronouns, prepositions, conjunctions, auxiliaries, and adverbs that tie sentences
together, in small letters"""


def is_content_word(word: str) -> bool:
    """Whether a word says something by itself: at least three characters, all of them letters, and
    no English function word. White space around it and capitals tell no two words apart."""
    word = word.strip().lower()
    return len(word) >= FEWEST_LETTERS and word.isalpha() and word not in FUNCTION_WORDS
