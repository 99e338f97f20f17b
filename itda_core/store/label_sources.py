"""What was written elsewhere of the same source, as SQL: labels belong to a token in a prompt.

Two latents have the same source where their prompt is one and, in it, their token: at the same
position from the same character to the same one, or, with another tokenizer, where both end the
text at the same character (the column `closes` of `latents`, open where it is not known), so that
both models have read the same when they come to it. In a dictionary that was moved from another one
a latent has the source of its namesake, wherever the other tokenizer's token ends. An autoencoder's
latent is not made of a token, so that its labels stay its own.

`similarity.same_sources` pairs latents by the same rule.
"""

LATENTS = "latents l JOIN runs r USING (run) JOIN prompts p USING (prompt)"
"""Tables of a latent l, its run r and its source's prompt p"""
_NAME = "regexp_replace({}, '-[0-9a-f]{{8}}-L[0-9]+$', '')"
"""The model of a run by its id, where nothing else is left of it"""
_SAME_PLACE = f"""CASE WHEN o."end" IS NULL
        THEN o.position = l.position AND {_NAME.format("o.run_id")} = {_NAME.format("r.run_id")}
        ELSE o."end" = l."end" AND (o.closes AND l.closes OR o.position = l.position
            AND o."start" = l."start" AND coalesce(o.closes = l.closes, true)) END"""
"""Where a source's place in the text is not known, positions compare within the runs of one model
alone."""
_NAMESAKES = """o.root = r.root AND o.origin = l.origin
    AND (o.root_digest IS NULL OR o.root_digest = r.root_digest)"""
"""Both moved from one run, or one from the other, and of one number there. A run may be trained
anew under its id, so its dictionary has to be one too; only of a run that is gone, whose labels
don't say it, is it not known, and the id counts."""
_SAME_SOURCE = f"""o.prompt = l.prompt AND o.run_id <> r.run_id
    AND ({_SAME_PLACE} OR {_NAMESAKES})"""
"""Of a label o and a latent l of another run r."""
ELSEWHERE = f"""latents l JOIN runs r USING (run) JOIN shared_labels o ON {_SAME_SOURCE}
    WHERE r.kind = 'itda'"""
"""Each latent l of a run r with each label o that was given to its source in another run."""
ATOMS_ELSEWHERE = f"""latents l JOIN runs r USING (run) JOIN (
        SELECT l.prompt, l.latent, l."start", l."end", l.position, l.closes, l.tokens, l.strongest,
            r.explored_tokens, r.run_id, r.root, r.root_digest,
            l.origin
        FROM latents l JOIN runs r USING (run) WHERE r.kind = 'itda') o ON {_SAME_SOURCE}
    WHERE r.kind = 'itda'"""
"""Each latent l of a run r with each latent o of another run that has the same source."""

OWN = """b.run_id = r.run_id AND b.latent = l.latent AND b.prompt_id = p.prompt_id
    AND b.position = l.position"""
"""Of a label b and a latent l of its run r, with its source's prompt p: whether it still has the
source that the label was written for."""
_NEWEST = """arg_max({name}, concat({name}_changed, o.run_id)) FILTER ({name} <> '') AS {name},
    arg_max(o.run_id, concat({name}_changed, o.run_id)) FILTER ({name} <> '') AS {name}_from"""
_OF_OTHERS = f"""(SELECT l.latent, {_NEWEST.format(name="label")}, {_NEWEST.format(name="note")},
        arg_max(o.run_id, concat(o.changed, o.run_id)) FILTER (o.bookmarked) AS bookmarked_from,
        list_sort(list_distinct(flatten(list(o.lists)))) AS lists,
        string_agg(concat_ws(' ', o.label, o.note), ' ' ORDER BY o.run_id) AS written
    FROM {ELSEWHERE} AND r.run_id = $run GROUP BY l.latent)"""
"""What others say of each latent of the run $run: of label and note the newest and the run that it
was given in, of bookmarks the run of the newest, all lists, and all that is written."""
LABELLED = f"""{LATENTS} LEFT JOIN labels b ON {OWN}
    LEFT JOIN {_OF_OTHERS} o ON o.latent = l.latent AND NOT coalesce(b.alone, false)"""
"""Latents of the run $run with the label b that was given here, and what others o say."""
SHOWN = """coalesce(nullif(b.label, ''), o.label, '') AS label,
    coalesce(nullif(b.note, ''), o.note, '') AS note,
    coalesce(b.bookmarked, false) OR o.bookmarked_from IS NOT NULL AS bookmarked,
    list_concat(coalesce(b.lists, []), list_filter(coalesce(o.lists, []),
        lambda name: NOT list_contains(coalesce(b.lists, []), name))) AS lists,
    CASE WHEN coalesce(b.label, '') = '' THEN coalesce(o.label_from, '') ELSE '' END AS label_from,
    CASE WHEN coalesce(b.note, '') = '' THEN coalesce(o.note_from, '') ELSE '' END AS note_from,
    CASE WHEN coalesce(b.bookmarked, false) THEN '' ELSE coalesce(o.bookmarked_from, '') END
        AS bookmarked_from"""
"""What is shown of a latent, its own, else what others say; where it is from, "" for its own."""
WRITTEN = "concat_ws(' ', b.label, b.note, o.written)"
"""All that is said of a latent, as a search reads it."""
