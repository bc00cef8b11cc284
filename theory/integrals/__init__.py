"""What methods share: integrals over the margin, orthants, lines, points near the boundary, the logits' own noise."""
