"""A trained network with its preprocessing: saved, loaded, predicted with, exported."""
