from clipfarm_assets_tests.pipelines.upkeep.kit import made, whole

assert made
assert whole  # fixtures
