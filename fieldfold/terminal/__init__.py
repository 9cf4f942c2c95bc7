"""What terminal apps share: words with roles, glyphs, themes, and widgets that show pure functions of a snapshot."""
