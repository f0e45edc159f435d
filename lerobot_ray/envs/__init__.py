"""Environments a policy acts in. Read `reach`, the small one that ships with the package."""
