"""Other processes and machines that share out the cases of a job; knows nothing of scans and models."""
