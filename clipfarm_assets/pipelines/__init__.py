"""The steps themselves, as plain functions from data to reports. Nothing here knows Dagster."""
