"""One folder a benchmark: its importer, its prompts, its scorer with the official formula. `registry` knows them all."""
