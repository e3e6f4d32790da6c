from clipfarm_assets_tests.stores import folder, s3, store  # noqa: F401 - fixtures
