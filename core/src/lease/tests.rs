//! The table and its rounds, clause by clause.
