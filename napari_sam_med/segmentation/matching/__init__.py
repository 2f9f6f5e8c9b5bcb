"""One labelled example, and the same organ elsewhere: `match_slice`, `match_volume`."""
