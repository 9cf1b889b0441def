// Private endpoints for what the app uses, and the zones in which their names resolve.

param token string
param location string
param tags object
param virtualNetworkId string
param subnetId string
param hostAccountId string
param uploadAccountId string
param vaultId string

var zoneNames = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  queue: 'privatelink.queue.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  vault: 'privatelink.vaultcore.azure.net'
}

var zones = [zoneNames.blob, zoneNames.queue, zoneNames.table, zoneNames.vault]

var targets = [
  { name: 'host-blob', resourceId: hostAccountId, kind: 'blob' }
  { name: 'host-queue', resourceId: hostAccountId, kind: 'queue' }
  { name: 'host-table', resourceId: hostAccountId, kind: 'table' }
  { name: 'uploads-blob', resourceId: uploadAccountId, kind: 'blob' }
  { name: 'uploads-queue', resourceId: uploadAccountId, kind: 'queue' }
  { name: 'vault', resourceId: vaultId, kind: 'vault' }
]

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zoneName in zones: {
    name: zoneName
    location: 'global'
    tags: tags
  }
]

resource zoneLink 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zoneName, index) in zones: {
    parent: zone[index]
    name: 'relay'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: virtualNetworkId
      }
    }
  }
]

resource endpoint 'Microsoft.Network/privateEndpoints@2024-07-01' = [
  for target in targets: {
    name: 'pe-${target.name}-${token}'
    location: location
    tags: tags
    properties: {
      subnet: {
        id: subnetId
      }
      privateLinkServiceConnections: [
        {
          name: target.name
          properties: {
            privateLinkServiceId: target.resourceId
            groupIds: [target.kind]
          }
        }
      ]
    }
  }
]

resource zoneGroup 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-07-01' = [
  for (target, index) in targets: {
    parent: endpoint[index]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: target.kind
          properties: {
            privateDnsZoneId: resourceId('Microsoft.Network/privateDnsZones', zoneNames[target.kind])
          }
        }
      ]
    }
    dependsOn: [zone]
  }
]
