"""What is asked about a clip: each module turns a clip's truth into one kind of `data_pipeline.schema.Sample`."""
