"""Labelling shard by shard: what a shard is, who labels one, and the engines that hand them out."""
