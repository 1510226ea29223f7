"""Operations without a paper: the plain form beside the fast one, which each file chooses."""
