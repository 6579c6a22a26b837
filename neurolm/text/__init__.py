"""Language before any learning: byte pairs, the merged vocabulary, instructions and text batches."""
