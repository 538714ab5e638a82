"""Hostile and wrong input for a destination, made out of a good migration.

`script` takes a channel apart and puts it together again with one thing changed; `plays` makes what is sent
of it; the other modules are the tables: `rows` for the streams whose outcome is known
(`spec/registries/destination-outcomes.toml`), `sweep` for everything that declarations and orders give."""
