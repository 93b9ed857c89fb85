"""A study's variants side by side: what differs, what it brought and what it cost. No torch."""
