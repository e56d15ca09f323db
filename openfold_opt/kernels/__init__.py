"""The operations that cost the time: plain definitions, fused versions, and the choice between them."""
