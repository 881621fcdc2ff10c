"""The policies that ship with hushtune; `pipeline.policy` reads them."""
