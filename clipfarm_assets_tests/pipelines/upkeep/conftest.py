from clipfarm_assets_tests.pipelines.upkeep.kit import made, whole

__all__ = ["made", "whole"]
